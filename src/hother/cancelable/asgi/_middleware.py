"""The middleware: a cancelation token for every request, and an end for every request nobody needs."""

from __future__ import annotations

import inspect
from math import inf
from typing import Any

from ._exchange import Exchange
from ._options import OnDisconnect, Options
from ._types import ASGIApp, Receive, Scope, Send


class RequestCancelationMiddleware:
    """ASGI middleware: a token for every HTTP request and WebSocket, and an end when the client leaves.

    The token is in ``scope["cancelation_token"]``. It is cancelled when the client disconnects before
    its response is complete, and when the deadline passes; with it, the handler is cancelled at its
    next checkpoint, whether it knows of tokens or not. A WebSocket handler that is waiting for a
    message when its client leaves gets ``websocket.disconnect`` instead, and ends by itself.

    A handler that is cancelled, or lets a `CancelationError` escape, is answered for: 504 for a
    deadline, 503 for other reasons, as a problem document (RFC 9457); for a WebSocket a close code.
    Once a response has started it is left unfinished, so that its client can see that it was cut short.

    Once the last message of a response is handed to the server, neither the peer's leaving nor the
    deadline cancels anything: background tasks run on.

    Works in every place of the middleware stack. Install it outermost, so that the others are
    stopped, too.

    Args:
        app: The ASGI application to call.
        default_timeout: How long an HTTP request may take until its response is complete, in seconds;
            ``None`` for no limit.
        websocket_timeout: How long a WebSocket may stay open, in seconds; ``None`` for no limit.
        on_disconnect: ``"cancel"`` stops the handler of a client that has left; ``"ignore"`` only
            cancels the token, which stops what was tied to it.
        read_ahead: How much of a request body (or how many WebSocket messages) is read before the
            handler asks for it, in bytes. While more than that waits unread, a disconnect cannot be
            seen, as without the middleware. With ``Expect: 100-continue`` nothing is read ahead
            before the handler first asks.
        answer_timeout: How long sending the answer for a cancelled handler may take, in seconds; and how
            long a last message may take that the client has not waited for.
        websocket_grace: How long a WebSocket handler that got ``websocket.disconnect`` may take to end by
            itself, in seconds. It is cancelled then, or when it sends another message.

    Raises:
        TypeError: If *app* is not an ASGI 3 application, or a timeout is not a number.
        ValueError: If a number is negative or NaN, or *on_disconnect* is unknown.
    """

    #: What the framework raises when its client has left; such errors end the request quietly.
    disconnect_errors: tuple[type[Exception], ...] = ()

    def __init__(
        self,
        app: ASGIApp,
        default_timeout: float | None = None,
        *,
        websocket_timeout: float | None = None,
        on_disconnect: OnDisconnect = "cancel",
        read_ahead: int = 65_536,
        answer_timeout: float | None = 5.0,
        websocket_grace: float | None = 10.0,
    ) -> None:
        _check_application(app)
        self.app = app
        self._options = Options(
            default_timeout=default_timeout,
            websocket_timeout=websocket_timeout,
            on_disconnect=on_disconnect,
            read_ahead=read_ahead,
            answer_timeout=inf if answer_timeout is None else answer_timeout,
            websocket_grace=inf if websocket_grace is None else websocket_grace,
            disconnect_errors=self.disconnect_errors,
        )
        self.prepare(app)

    def prepare(self, app: ASGIApp) -> None:
        """Do what a framework's applications need when they are wrapped. Nothing, here."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection. Scopes other than ``http`` and ``websocket`` pass untouched."""
        if scope["type"] in {"http", "websocket"}:
            await Exchange(scope, receive, send, self._options).run(self.app)
        else:
            await self.app(scope, receive, send)


def _check_application(app: Any) -> None:
    problem = None if callable(app) and not inspect.isclass(app) else "it is not a callable object"
    if problem is None:
        try:
            inspect.signature(app).bind("scope", "receive", "send")
        except TypeError as error:
            problem = str(error)
        except ValueError:  # a callable that tells no signature
            pass
    if problem is not None:
        raise TypeError(
            f"app must be an ASGI 3 application, called as app(scope, receive, send), got {app!r}: {problem}"
        )
