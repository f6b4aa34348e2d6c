"""The middleware: a cancelation token for every request, and an end for every request nobody needs."""

from __future__ import annotations

import inspect
from math import inf
from typing import Any

from .._core._reasons import Cancelation
from .._core._token import CancelationToken
from ._exchange import EXCHANGE_KEY, Exchange
from ._lifespan import Lifespan
from ._options import Options
from ._outcome import reject
from ._policy import OnDisconnect, OnShutdown
from ._quirks import opens_no_scopes
from ._shutdown import Shutdown
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
        on_disconnect: What becomes of a handler whose client has left. ``"cancel"`` stops it at once;
            that is the default. ``"ignore"`` only cancels the token, which stops what was tied to it.
            ``"finish"`` lets all of it go on as if the client were there, for as long as the timeout
            allows. `Grace` cancels the token, and stops the handler some seconds later.
        read_ahead: How much of a request body (or how many WebSocket messages) is read before the
            handler asks for it, in bytes. While more than that waits unread, a disconnect cannot be
            seen, as without the middleware. With ``Expect: 100-continue`` nothing is read ahead
            before the handler first asks.
        answer_timeout: How long sending the answer for a cancelled handler may take, in seconds; how long
            a last message may take that the client has not waited for; and closing a WebSocket. ``None``: for
            as long as the server waits for a client that has stalled, and the request lasts as long as that.
        websocket_grace: How long a WebSocket handler that got ``websocket.disconnect`` may take to end by
            itself, in seconds. It is cancelled then, or when it sends another message.
        on_shutdown: What becomes of a handler when the server begins to stop; the same choices, and
            ``Grace(2.0)`` by default.
        reject_during_shutdown: Whether requests that still come then are refused, with 503 and
            ``Retry-After``. Otherwise they get the time that those before them got.
        shutdown_timeout: How long the application's own shutdown is put off for requests that are not
            over yet, in seconds: their clean-up needs what the application is about to close.

    Raises:
        TypeError: If *app* is not an ASGI 3 application, or a timeout is not a number.
        ValueError: If a number is negative or NaN, or a choice is unknown.
    """

    #: What the framework raises when its client has left; such errors end the request quietly.
    disconnect_errors: tuple[type[Exception], ...] = ()

    def __init__(
        self,
        app: ASGIApp,
        default_timeout: float | None = None,
        *,
        websocket_timeout: float | None = None,
        on_disconnect: OnDisconnect | None = None,
        read_ahead: int = 65_536,
        answer_timeout: float | None = 5.0,
        websocket_grace: float | None = 10.0,
        on_shutdown: OnShutdown | None = None,
        reject_during_shutdown: bool = False,
        shutdown_timeout: float | None = 10.0,
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
            on_shutdown=on_shutdown,
            reject_during_shutdown=reject_during_shutdown,
            shutdown_timeout=inf if shutdown_timeout is None else shutdown_timeout,
        )
        self._shutdown = Shutdown()
        self._easy_send: object = None  # the function of a server's send() that opens no scopes, once seen
        self.prepare(app)

    def prepare(self, app: ASGIApp) -> None:
        """Do what a framework's applications need when they are wrapped. Nothing, here."""

    def prepare_for(self, scope: Scope) -> None:
        """Do what a framework around us needs, before each connection that it passes on. Nothing, here."""

    @property
    def shutdown_token(self) -> CancelationToken:
        """The token that is cancelled when the server begins to stop; a new one with each start."""
        return self._shutdown.token

    def begin_shutdown(self, message: str | None = None) -> None:
        """Do for this application what `hother.cancelable.asgi.begin_shutdown` does for all."""
        self._shutdown.begin(message)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection. Scopes other than ``http`` and ``websocket`` pass through.

        Of the lifespan we only overhear when it begins and ends.
        """
        if "app" in scope:  # where frameworks leave themselves
            self.prepare_for(scope)
        if scope["type"] in {"http", "websocket"}:
            if self._options.reject_during_shutdown and (event := self._shutdown_for(scope)) is not None:
                await reject(event, scope, receive, send)
                return
            # Most requests are over with that, and need no coroutine of their own.
            rest = Exchange().start(scope, receive, send, self)
            if rest is not None:
                await rest
        elif scope["type"] == "lifespan":
            patience = self._options.shutdown_timeout
            await Lifespan(receive, send, self._shutdown, patience=patience).run(self.app, scope)
        else:
            await self.app(scope, receive, send)

    def _can_send_easily(self, send: Send) -> bool:
        """Whether *send* is a server's that opens no scopes. Remembers its function: to ask takes longer."""
        is_easy = opens_no_scopes(send)
        if is_easy:
            method: Any = send
            self._easy_send = method.__func__
        return is_easy

    def _shutdown_for(self, scope: Scope) -> Cancelation | None:
        """Return what has begun the shutdown: no lifespan reaches the middleware of a mounted application."""
        outer: Exchange | None = scope.get(EXCHANGE_KEY)
        return self._shutdown.event or (None if outer is None else outer.outermost._shutdown.event)


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
