"""The token of a Starlette request, with or without the middleware."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from .._core._token import CancelationToken
from ..asgi import TOKEN_KEY


def get_request_token(request: HTTPConnection) -> CancelationToken:
    """Return the cancelation token of a request or WebSocket: the same for all callers. Never blocks.

    Without `RequestCancelationMiddleware` a token is made and kept for the request. Nobody cancels
    that one when the client leaves, but those who share it can.

    Args:
        request: A ``Request``, a ``WebSocket``, or any other ``HTTPConnection``.

    Raises:
        TypeError: If *request* is something else.
    """
    if not isinstance(request, HTTPConnection):
        raise TypeError(f"request must be a Request or a WebSocket, got {request!r}")
    token = request.scope.get(TOKEN_KEY)
    if not isinstance(token, CancelationToken):
        token = request.scope[TOKEN_KEY] = CancelationToken()
    return token
