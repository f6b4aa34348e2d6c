"""Endpoints as cancelable operations.

A decorated endpoint keeps the signature of the original, which is what FastAPI builds dependency
injection and OpenAPI from. So no parameter is added to get at the request: it is found among the
arguments, or else through the middleware.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, cast

from anyio import to_thread
from starlette.exceptions import HTTPException, WebSocketException
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket, WebSocketState

from .._core._errors import cancelation_in
from .._core._reasons import Cancelation
from .._core._timeouts import seconds
from .._core._token import CancelationToken
from .._scope import Cancelable
from ..asgi import close_message, current_request_token, outcome_of, problem
from ._requests import get_request_token, note_answer
from ._websocket_closing import is_deniable


def decorator(timeout: Any, http_exception: type[HTTPException] | None) -> Any:
    """Make the decorator ``with_cancelation``; or apply it, if *timeout* is the endpoint (no parentheses)."""
    if callable(timeout):
        return decorate(timeout, None, http_exception)
    seconds(timeout)  # complains where the mistake is

    def with_cancelation(endpoint: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        return decorate(endpoint, timeout, http_exception)

    return with_cancelation


def decorate(
    endpoint: Callable[..., Any],
    timeout: float | timedelta | None,
    http_exception: type[HTTPException] | None,
) -> Callable[..., Awaitable[Any]]:
    """Wrap *endpoint*; a cancelation becomes an *http_exception*, unless that is ``None``.

    Raises:
        TypeError: If *endpoint* is a generator, or cannot be called.
    """
    call = _as_coroutine_function(endpoint)
    limit = seconds(timeout)

    @functools.wraps(endpoint)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        connection = _connection_in(*args, *kwargs.values())
        token = current_request_token() if connection is None else get_request_token(connection)
        try:
            async with _operation(endpoint, limit, token):
                return await call(*args, **kwargs)
        except Exception as error:
            cancelation = cancelation_in(error)
            if http_exception is None or cancelation is None or _is_closed(connection):
                raise
            if connection is not None:
                note_answer(connection, cancelation)
            raise _framework_error(cancelation, connection, http_exception) from error

    return wrapper


def _as_coroutine_function(endpoint: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    if not callable(endpoint):
        raise TypeError(f"with_cancelation decorates endpoints, got {endpoint!r}")
    if inspect.isasyncgenfunction(endpoint) or inspect.isgeneratorfunction(endpoint):
        raise TypeError(
            f"with_cancelation cannot decorate the generator {endpoint!r}: the endpoint would be "
            "over before its stream begins; return a cancelable_streaming_response instead"
        )
    if _is_async(endpoint):
        return endpoint

    async def call(*args: Any, **kwargs: Any) -> Any:  # as the framework itself would call it
        return await to_thread.run_sync(functools.partial(endpoint, *args, **kwargs))

    return call


def _is_async(endpoint: Callable[..., Any]) -> bool:
    while isinstance(endpoint, functools.partial):
        endpoint = endpoint.func
    is_async = inspect.iscoroutinefunction
    return is_async(endpoint) or is_async(type(endpoint).__call__)


def _connection_in(*values: Any) -> HTTPConnection | None:
    for value in values:
        if isinstance(value, HTTPConnection):
            return cast("HTTPConnection", value)
    return None


def _operation(
    endpoint: Callable[..., Any], timeout: float | None, token: CancelationToken | None
) -> Cancelable:
    tokens = () if token is None else (token,)
    return Cancelable(timeout=timeout, tokens=tokens, name=getattr(endpoint, "__name__", None))


def _is_closed(connection: HTTPConnection | None) -> bool:
    """Whether the client of a WebSocket was told already, or is being told."""
    told = (WebSocketState.DISCONNECTED, WebSocketState.RESPONSE)
    return isinstance(connection, WebSocket) and connection.application_state in told


def _framework_error(
    cancelation: Cancelation, connection: HTTPConnection | None, http_exception: type[HTTPException]
) -> Exception:
    outcome = outcome_of(cancelation)
    if isinstance(connection, WebSocket) and not is_deniable(connection, cancelation):
        message = close_message(cancelation)
        return WebSocketException(message["code"], message["reason"])
    return http_exception(outcome.status, str(problem(cancelation)["detail"]), outcome.headers)
