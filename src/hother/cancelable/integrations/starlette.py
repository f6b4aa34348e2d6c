"""Starlette: the middleware, and endpoints, streaming responses and WebSockets that can be cancelled.

Everything here works in FastAPI as well; `hother.cancelable.integrations.fastapi` adds what needs it.
"""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, ParamSpec, TypeVar, cast, overload

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.types import Scope
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from .. import asgi
from .._core._errors import CancelationError
from ..asgi import Grace, RequestPolicy, apply_policy, begin_shutdown, commit
from ._clean_up import CleanupTask
from ._drain import Drain
from ._endpoints import decorator
from ._requests import get_request_token, get_shutdown_token, note_answer
from ._resume import ResumableEvents
from ._sse import ServerSentEvent, get_last_event_id
from ._streaming import cancelable_sse_response, cancelable_streaming_response
from ._websocket import CancelableWebSocket
from ._websocket_closing import is_deniable

__all__ = (
    "CancelableWebSocket",
    "CleanupTask",
    "Drain",
    "Grace",
    "RequestCancelationMiddleware",
    "RequestPolicy",
    "ResumableEvents",
    "ServerSentEvent",
    "apply_policy",
    "begin_shutdown",
    "cancelable_sse_response",
    "cancelable_streaming_response",
    "commit",
    "get_last_event_id",
    "get_request_token",
    "get_shutdown_token",
    "with_cancelation",
)

P = ParamSpec("P")
T = TypeVar("T")


class RequestCancelationMiddleware(asgi.RequestCancelationMiddleware):
    """`hother.cancelable.asgi.RequestCancelationMiddleware`, with what Starlette and FastAPI need.

    Starlette's ``ClientDisconnect`` and ``WebSocketDisconnect``, if nobody handles them, end the
    request quietly. An application that is wrapped as a whole, rather than through
    ``add_middleware``, answers a `CancelationError` in the way of this middleware.
    """

    disconnect_errors: tuple[type[Exception], ...] = (ClientDisconnect, WebSocketDisconnect)

    def prepare(self, app: asgi.ASGIApp) -> None:
        """Teach an application that is wrapped as a whole, and those mounted in it."""
        self._taught: weakref.WeakSet[Starlette] = weakref.WeakSet()
        self._around: Callable[[], Starlette | None] = lambda: None  # the last application around us
        if isinstance(app, Starlette):
            self._teach(app)

    def prepare_for(self, scope: Scope) -> None:
        """Teach the application around us, which nobody knew when the middleware was made."""
        outer = scope["app"]
        if outer is not self._around() and isinstance(outer, Starlette):
            self._around = weakref.ref(outer)
            self._teach(outer)

    def _teach(self, app: Starlette) -> None:
        """Have an application, and those mounted in it, answer a `CancelationError` as we do.

        They would otherwise answer with their own 500, before the error gets here.
        """
        self._taught.add(app)
        app.exception_handlers.setdefault(CancelationError, cast("Any", answer_cancelation))
        for mounted in _mounted_in(app.routes):
            if mounted not in self._taught:
                self._teach(mounted)


def _mounted_in(routes: Iterable[BaseRoute]) -> Iterator[Starlette]:
    for route in routes:
        app: Any = getattr(route, "app", None)
        while hasattr(app, "app") and not isinstance(app, Starlette):
            app = app.app  # in a middleware of its own
        if isinstance(app, Starlette):
            yield app
        else:
            yield from _mounted_in(getattr(route, "routes", None) or ())


_CLOSABLE = frozenset({WebSocketState.CONNECTING, WebSocketState.CONNECTED})


async def answer_cancelation(connection: Request | WebSocket, error: Exception) -> Response | None:
    """Answer a `CancelationError` as an exception handler of Starlette."""
    assert isinstance(error, CancelationError)
    note_answer(connection, error.cancelation)
    if isinstance(connection, WebSocket) and not is_deniable(connection, error.cancelation):
        if connection.application_state in _CLOSABLE:  # nobody has closed it yet
            message = asgi.close_message(error.cancelation)
            await connection.close(message["code"], message["reason"])
        return None
    outcome = asgi.outcome_of(error.cancelation)
    return JSONResponse(
        asgi.problem(error.cancelation), outcome.status, outcome.headers, media_type=asgi.PROBLEM_JSON
    )


@overload
def with_cancelation(timeout: Callable[P, Awaitable[T]], /) -> Callable[P, Awaitable[T]]: ...
@overload
def with_cancelation(timeout: Callable[P, T], /) -> Callable[P, Awaitable[T]]: ...
@overload
def with_cancelation(
    timeout: float | None = None, raise_on_cancel: bool = True
) -> Callable[[Callable[P, Any]], Callable[P, Awaitable[Any]]]: ...
def with_cancelation(timeout: Any = None, raise_on_cancel: bool = True) -> Any:
    """Make an endpoint's body a cancelable operation, tied to the request's token.

    `current_operation` returns the operation inside. Works with and without parentheses, for ``async
    def`` and ``def`` endpoints, with or without a ``request`` parameter; the endpoint's signature
    stays as it is. A ``def`` endpoint runs in a worker thread, which nothing can interrupt: let it
    call ``current_operation().check()`` now and then.

    Args:
        timeout: How long the endpoint may take, in seconds.
        raise_on_cancel: Whether a cancelation becomes an ``HTTPException`` with the outcome's status
            (504 for a timeout), or a ``WebSocketException``. Otherwise the `CancelationError` itself
            leaves the endpoint.

    Raises:
        TypeError: If what is decorated is a generator, or *timeout* is not a number.
        ValueError: If *timeout* is negative or NaN.
    """
    return decorator(timeout, HTTPException if raise_on_cancel else None)
