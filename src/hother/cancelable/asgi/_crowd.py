"""The requests of one event loop that have begun to wait: which of them are monitored, and from when on.

A monitor costs as much as the rest of a short request, and most requests are over in a moment. While few
are open that does not matter: a request is monitored as soon as it waits for something. In a crowd, it is
monitored once it has lasted for `PATIENCE` seconds, or longer if the loop has so much to do that its
timers are late: then requests last because they wait for each other, and monitors would make that worse.
If a client leaves before, that is seen then; who cancels a token is heard at any time.
"""

from __future__ import annotations

from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import EventLoopToken

from ._loops import Loop, Pending, call_at, has_timers, sleep_and_call, spawn

if TYPE_CHECKING:
    from ._exchange import Exchange

FEW = 8
"""How many requests may be open that are monitored at once."""

PATIENCE = 0.025
"""How long the others must last, in seconds."""

TURNS = 16
"""How many turns of the loop a request may take without being counted, as long as it waits for no more.

So long it takes Hypercorn on Trio to send a response: there, each part of it is a turn, if nothing is in its way.
"""

LATENESS = 4.0
"""How much longer they must last, in units of how late the timer is."""

LONGEST = 1.0
"""How long they must last at most, in seconds. Who may have a shorter deadline does not get in line."""


class Crowd:
    """The requests of one event loop that wait for something."""

    __slots__ = ("_alarm", "_due", "_heirs", "_open", "_young")

    def __init__(self) -> None:
        self._open = 0
        self._young: dict[Exchange, float] = {}  # since when they wait, the oldest first
        self._alarm: Pending | None = None  # the one timer, set for the young ones ...
        self._due = 0.0  # ... when it rings ...
        self._heirs: list[Exchange] = []  # ... and who waits for its end, if it is a task

    def enter(self, exchange: Exchange, *, cannot_wait: bool, is_answered: bool) -> bool:
        """Take note of a request that waits. Returns whether it is to be monitored at once.

        One that has been answered need not: what its client's leaving would end is a last message that
        has got stuck, which takes its time.
        """
        self._open += 1
        if cannot_wait or (self._open <= FEW and not is_answered):
            return True
        now = self._young[exchange] = exchange.now()
        if self._alarm is None:
            self._set_alarm(exchange, now + PATIENCE)
        return False

    def leave(self, exchange: Exchange) -> None:
        """Take note that a request is over."""
        self._open -= 1
        self._young.pop(exchange, None)
        if self._open or self._alarm is None or self._alarm is _AT_HOME:
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
        loop = exchange.loop
        if has_timers(loop):
            self._alarm = call_at(loop, when, self._promote, Context())
        elif (home := exchange.home) is not None:
            self._alarm = _AT_HOME
            Context().run(home.start_soon, self._ring_at_home, exchange.monitors.loop)
        else:
            self._set_alarm_of_requests(loop, when)

    async def _ring_at_home(self, loop: Loop) -> None:
        """Ring in a task of the application's lifespan, which no request has to wait for.

        Args:
            loop: Else it would be gone with the last request, and we with it, and the next one begin anew.
        """
        try:
            await sleep_and_call(self._due, self._promote)
        except anyio.get_cancelled_exc_class():  # the application is about to end
            self._alarm = None
            if self._young:
                self._set_alarm_of_requests(loop.token, self._due)
            raise

    def _set_alarm_of_requests(self, loop: EventLoopToken, when: float) -> None:
        heirs: list[Exchange] = []
        self._heirs = heirs

        def end(_: object) -> None:
            while heirs:
                heirs.pop().monitors.one_ended(None)

        self._alarm = spawn(loop, partial(sleep_and_call, when, self._promote), Context(), end)


class _AtHome:
    """An alarm that rings, whoever still waits for it."""

    def cancel(self) -> None:
        """Do nothing."""


_AT_HOME = _AtHome()


def crowd_of(loop: Loop) -> Crowd:
    """Return the one crowd of an event loop."""
    if loop.crowd is None:
        loop.crowd = Crowd()
    return loop.crowd
