"""The server begins to stop: who is told, and who is waited for.

Servers tell applications of their end when all requests are over (``lifespan.shutdown``), and a request
that waits for that news would never end. So the news comes from wherever it can be had first: a signal
that the server handles, a server's own event, whoever calls `begin_shutdown`, and ``lifespan.shutdown``
as the last resort.

One `Shutdown` belongs to one middleware, and serves one event loop.
"""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING

import anyio

from .._core._reasons import Cancelation, CancelationReason
from .._core._report import report
from .._core._token import CancelationToken
from .._core._wakeup import run_in
from ._current import current_exchange
from ._loops import Loop, this_loop
from ._quirks import termination_of
from ._types import Send

if TYPE_CHECKING:
    from ._exchange import Exchange
    from ._helpers import Helpers

_everywhere: weakref.WeakSet[Shutdown] = weakref.WeakSet()

in_lifespan: ContextVar[Shutdown | None] = ContextVar("shutdown_of_lifespan", default=None)
"""The shutdown of the application whose lifespan this code belongs to."""


def begin_shutdown(message: str | None = None) -> None:
    """Say that the server is about to stop: made for servers that are embedded in a program.

    All applications of this process with a `RequestCancelationMiddleware` hear of it, as they would from
    a signal: their shutdown tokens are cancelled, and their requests stop as their policies say. A second
    call does nothing. Never blocks; does not wait for the requests.

    Safe in any thread and in signal handlers once the applications have started (their lifespan, that is);
    without a lifespan, call it in the event loop's thread.

    Args:
        message: What to tell humans, clients included.
    """
    for shutdown in tuple(_everywhere):
        shutdown.begin(message)


class Shutdown:
    """Whether the server has begun to stop, and the requests that are in flight."""

    def __init__(self) -> None:
        self.in_flight: set[Exchange] = set()
        self._drained: anyio.Event | None = None
        self.loop: Loop | None = None  #: that of the lifespan, while there is one
        self.helpers: Helpers | None = None  #: where a task can wait, while the application is up
        self._has_asked_server = False
        self.token = self._new_token()
        _everywhere.add(self)

    def _new_token(self) -> CancelationToken:
        token = CancelationToken()
        reference = weakref.ref(self)  # whoever keeps the token need not keep us

        def tell(event: Cancelation) -> None:
            shutdown = reference()
            if shutdown is not None:
                shutdown._begun(event)

        token.add_callback(tell)
        return token

    @property
    def event(self) -> Cancelation | None:
        """What has begun the shutdown, if something has."""
        return self.token.cancelation

    # --- The lifespan

    def start(self) -> None:
        """Begin a new life: the application starts, in this event loop."""
        self.loop = this_loop()
        self._has_asked_server = False
        if self.token.is_cancelled:
            self.token = self._new_token()

    def end(self) -> None:
        """Let go of the lifespan."""
        self.loop = None

    def begin(self, message: str | None = None, *, by: str | None = None) -> None:
        """Begin. Never blocks; safe in any thread and in signal handlers."""
        try:
            self.token.cancel(CancelationReason.SHUTDOWN, message, by=by)
        except Exception as error:  # of somebody's callback; who stops the server must not fail for it
            report([error])

    async def drain(self, patience: float) -> None:
        """Wait until no request is in flight, for *patience* seconds at most."""
        self._drained = anyio.Event()
        try:
            with anyio.move_on_after(patience):
                if self.in_flight:
                    await self._drained.wait()
        finally:
            self._drained = None

    # --- The requests

    def leave(self, exchange: Exchange) -> None:
        """Take note that a request is over."""
        self.in_flight.discard(exchange)
        if self._drained is not None and not self.in_flight:
            self._drained.set()

    def ask_server(self, send: Send) -> None:
        """Have the server's end begin ours, where it tells only who asks. Done once for all requests."""
        if self.helpers is not None and not self._has_asked_server:
            self._has_asked_server = True
            if (wait := termination_of(send)) is not None:
                self.helpers.start(partial(self._begin_after, wait))

    async def _begin_after(self, wait: Callable[[], Awaitable[None]]) -> None:
        await wait()
        self.begin()

    def _begun(self, event: Cancelation) -> None:
        if (home := self.loop) is not None:
            run_in(home.token, self._tell_requests, event)
            return
        # Without a lifespan, the requests' loop is the one.
        loops = (exchange.loop for exchange in self._requests() if exchange.knows_its_loop)
        if (loop := next(loops, None)) is not None:
            run_in(loop, self._tell_requests, event)

    def _tell_requests(self, event: Cancelation) -> None:
        for exchange in self._requests():
            exchange.shut_down(event)

    def _requests(self) -> set[Exchange]:
        """All that are in flight, and the one in whose first step a signal handler has called us."""
        here = current_exchange()
        outermost = None if here is None else here.outermost
        if outermost is None or outermost._shutdown is not self:
            return set(self.in_flight)
        return {*self.in_flight, outermost}
