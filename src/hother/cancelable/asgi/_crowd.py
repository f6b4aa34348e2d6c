"""The requests of one event loop that have begun to wait: which of them are monitored, and from when on.

A monitor costs as much as the rest of a short request, and most requests are over in a moment. While few
are open that does not matter: a request is monitored as soon as it waits for something. In a crowd, it is
monitored once it has lasted for `PATIENCE` seconds, or longer if the loop has so much to do that its
timers are late: then requests last because they wait for each other, and monitors would make that worse.
So is one that waits only because its last message is being handed over: it is about to be over.
If a client leaves before, that is seen then; who cancels a token is heard at any time.
"""

from __future__ import annotations

from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import EventLoopToken

from ._loops import Loop, Pending, call_at, has_timers, sleep_and_call, spawn, this_loop
from ._response import COMPLETE

if TYPE_CHECKING:
    from ._exchange import Exchange
    from ._monitors import Monitors

FEW = 8
"""How many requests may be open that are monitored at once."""

PATIENCE = 0.025
"""How long the others must last, in seconds."""

TURNS = 16
"""How many turns of the loop a request of Trio's may take without being counted, if it waits for no more.

Whoever sends there takes a turn, even if nothing is in the way; a response of Hypercorn's takes eight.
"""

LATENESS = 4.0
"""How much longer they must last, in units of how late the timer is."""

LONGEST = 1.0
"""How long they must last at most, in seconds. Who may have a shorter deadline does not get in line."""


class Crowd:
    """The requests of one event loop that wait for something."""

    __slots__ = ("_alarm", "_due", "_heirs", "_keeping", "_open", "_wanted", "_young")

    def __init__(self) -> None:
        self._open = 0
        self._young: dict[Exchange, float] = {}  # since when they wait, the oldest first
        self._alarm: Pending | None = None  # the one timer, set for the young ones ...
        self._due = 0.0  # ... when it rings ...
        self._heirs: list[Exchange] = []  # ... and who waits for its end, if it is a task of its own
        self._keeping: anyio.Lock | None = None  # held by the one task that rings in its place ...
        self._wanted: anyio.Event | None = None  # ... and what that waits for, while there is one

    def enter(self, exchange: Exchange, monitors: Monitors, now: float, cannot_wait: bool) -> None:
        """Take note of a request that waits, and have it monitored, at once or later.

        One that has been answered is not monitored at once: what its client's leaving would end is a last
        message that has got stuck, which takes its time.

        Args:
            exchange: The request.
            monitors: What it has.
            now: The time on the loop's clock, in seconds: none is put in front of those that came before.
            cannot_wait: Whether it is to be monitored at once in any case.
        """
        monitors.crowd = self
        self._open += 1
        if cannot_wait or (self._open <= FEW and exchange._phase is not COMPLETE):
            exchange.monitor()
            return
        self._young[exchange] = now
        if self._alarm is None:
            self._set_alarm(exchange, now + PATIENCE)

    def leave(self, exchange: Exchange) -> None:
        """Take note that a request is over."""
        self._open -= 1
        self._young.pop(exchange, None)
        if self._open or self._alarm is None or self._alarm is _KEPT:
            return  # the timer is for whoever comes next: to take it back and set it for each takes longer
        self._alarm.cancel()
        self._alarm = None
        if not has_timers(exchange.loop):  # then it is a task, which is not to outlive all requests
            self._heirs.append(exchange)
            exchange.monitors.expect_one_more()

    def _promote(self) -> None:
        """Monitor those that have lasted long enough; the others get another look when the next has."""
        self._alarm = None
        patience = PATIENCE
        while self._young:
            exchange, since = next(iter(self._young.items()))
            now = exchange.now()
            patience = min(max(patience, PATIENCE + LATENESS * (now - self._due)), LONGEST)
            if now < since + patience:
                self._set_alarm(exchange, since + patience)
                return
            del self._young[exchange]
            exchange.monitor()

    def _set_alarm(self, exchange: Exchange, when: float) -> None:
        self._due = when
        if has_timers(exchange.loop):
            self._alarm = call_at(exchange.loop, when, self._promote, Context())
        elif self._wanted is not None:
            self._alarm = _KEPT
            self._wanted.set()
        else:
            self._start_alarm(exchange.loop)

    def _start_alarm(self, loop: EventLoopToken) -> None:
        heirs: list[Exchange] = []
        self._heirs = heirs

        def end(_: object) -> None:
            while heirs:
                heirs.pop().monitors.one_ended(None)

        self._alarm = spawn(loop, partial(sleep_and_call, self._due, self._promote), Context(), end)

    async def keep_time(self, loop: Loop) -> None:
        """Ring when an alarm is due, until cancelled. If several do, the others wait for their turn.

        Args:
            loop: Whose crowd it is: else it might be gone with the last request, and the next begin anew.
        """
        self._keeping = self._keeping or anyio.Lock()
        async with self._keeping:
            self._wanted = anyio.Event()
            try:
                while True:
                    await self._wanted.wait()
                    self._wanted = anyio.Event()
                    await sleep_and_call(self._due, self._promote)
            finally:
                self._wanted = None
                if self._alarm is _KEPT:
                    self._alarm = None
                    if self._young:
                        self._start_alarm(loop.token)


class _Kept:
    """An alarm that rings, whoever still waits for it."""

    def cancel(self) -> None:
        """Do nothing."""


_KEPT = _Kept()


def crowd_of(loop: Loop) -> Crowd:
    """Return the one crowd of an event loop."""
    if loop.crowd is None:
        loop.crowd = Crowd()
    return loop.crowd


async def keep_time() -> None:
    """Do what timers would do for the crowd of this event loop, where that has none, until cancelled.

    For a task of the application's. Else the requests start one, and the last of them ends it and waits for
    that, which takes as long as to read.
    """
    loop = this_loop()
    await crowd_of(loop).keep_time(loop)
