"""The tokens of a Starlette request, with or without the middleware."""

from __future__ import annotations

from starlette.requests import HTTPConnection, Request

from .._core._reasons import Cancelation
from .._core._token import CancelationToken
from ..asgi import TOKEN_KEY
from ..asgi._exchange import EXCHANGE_KEY, Exchange

SHUTDOWN_TOKEN_KEY = "cancelation_shutdown_token"
"""Where a request without the middleware keeps a shutdown token."""


def get_request_token(request: HTTPConnection) -> CancelationToken:
    """Return the cancelation token of a request or WebSocket: the same for all callers. Never blocks.

    Without `RequestCancelationMiddleware` a token is made and kept for the request. Nobody cancels
    that one when the client leaves, but those who share it can.

    Args:
        request: A ``Request``, a ``WebSocket``, or any other ``HTTPConnection``.

    Raises:
        TypeError: If *request* is something else.
    """
    # An HTTPConnection is a Mapping, and to ask for an instance of an abstract class takes a while.
    if type(request) is not Request and not isinstance(request, HTTPConnection):
        raise TypeError(f"request must be a Request or a WebSocket, got {request!r}")
    token = request.scope.get(TOKEN_KEY)
    if not isinstance(token, CancelationToken):
        token = request.scope[TOKEN_KEY] = CancelationToken()
    return token


def get_shutdown_token(request: HTTPConnection) -> CancelationToken:
    """Return the token that is cancelled when the server begins to stop. Never blocks.

    It is the application's, one for all its requests. A stream that waits for it can say goodbye while
    there is still time. Without `RequestCancelationMiddleware` nobody cancels it.

    Args:
        request: A ``Request``, a ``WebSocket``, or any other ``HTTPConnection``.

    Raises:
        TypeError: If *request* is something else.
    """
    exchange = exchange_of(request)
    if exchange is not None:
        return exchange.outermost._shutdown.token
    token: CancelationToken = request.scope.setdefault(SHUTDOWN_TOKEN_KEY, CancelationToken())
    return token


def exchange_of(request: HTTPConnection) -> Exchange | None:
    """Return what runs the request in the middleware, if there is one.

    Raises:
        TypeError: If *request* is not a connection.
    """
    if not isinstance(request, HTTPConnection):
        raise TypeError(f"request must be a Request or a WebSocket, got {request!r}")
    exchange: Exchange | None = request.scope.get(EXCHANGE_KEY)
    return exchange


def note_answer(connection: HTTPConnection, cancelation: Cancelation) -> None:
    """Have the access log know of a cancelation that the application answers for in its own way."""
    exchange = exchange_of(connection)
    if exchange is not None:
        exchange.course.note(cancelation)
