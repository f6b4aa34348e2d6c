"""The task that sends, for streams in which something happens while their generator is quiet.

It is not the generator's task. A step of a generator that was interrupted to do something else could
not be taken up again. And a server may not let go of who sends to a client that has stalled (Hypercorn
on Trio does not): the generator's task is free to close it all the same.
"""

from __future__ import annotations

from math import inf

from anyio import CancelScope, Event, current_time

from ._outlet import Outlet

MAX_WAIT = 1.0
"""How long a small piece waits at most for more to come, in seconds, if there is always a little more."""


class Courier:
    """Sends what is ready, what has waited for too long, and something now and then.

    Args:
        outlet: Where to send it.
        flush_after: How long small pieces wait for the next one, in seconds.
        heartbeat: What to send when nothing was sent for a while.
        interval: How long a while is, in seconds; infinite for no heartbeat.
    """

    __slots__ = (
        "_flush_after",
        "_flush_at",
        "_flushed",
        "_has_ended",
        "_heartbeat",
        "_interval",
        "_latest",
        "_latest_flush",
        "_nap",
        "_outlet",
        "_wake",
    )

    def __init__(self, outlet: Outlet, *, flush_after: float, heartbeat: bytes, interval: float) -> None:
        self._outlet = outlet
        self._flush_after = flush_after
        self._latest = max(flush_after, MAX_WAIT)
        self._heartbeat = heartbeat
        self._interval = interval
        self._nap = CancelScope()
        self._wake = Event()
        self._has_ended = False
        self._flushed: Event | None = None  # for who waits for it, while somebody does
        self._flush_at = inf
        self._latest_flush = inf

    async def deliver(self) -> None:
        """Wait until all of what was added that makes messages is sent. A checkpoint if there is some."""
        outlet = self._outlet
        if outlet.is_ready:
            self._wake.set()  # to cancel the nap would cost several times as much
        elif outlet.has_waiting:
            self._expect_more()
        # What is added when the courier has been interrupted is sent with the last word.
        while outlet.is_ready and not self._has_ended:
            self._flushed = Event()
            await self._flushed.wait()

    def release(self) -> None:
        """Nothing will be sent any more: let nobody wait for it, not even while a server holds us up."""
        self._tell_waiting()

    def _tell_waiting(self) -> None:
        if self._flushed is not None:
            self._flushed.set()
            self._flushed = None

    async def run(self) -> None:
        """Go on for ever."""
        try:
            while True:
                await self._do_what_is_due()
                # Woken earlier if there is something to send. Now there is not: all that has come while
                # something was sent was sent with it.
                self._wake = Event()
                with CancelScope(deadline=min(self._flush_at, self._beat_at)) as self._nap:
                    await self._wake.wait()
        finally:
            self._has_ended = True
            self._tell_waiting()

    async def _do_what_is_due(self) -> None:
        outlet, now = self._outlet, current_time()
        if now >= self._beat_at:
            outlet.add(self._heartbeat)
            self._flush_at = now
        is_due = now >= self._flush_at
        if is_due or outlet.is_ready:
            await outlet.flush(everything=is_due)
            self._flush_at = self._latest_flush = inf
            if outlet.has_waiting:
                self._expect_more()
        self._tell_waiting()

    def _expect_more(self) -> None:
        now = current_time()
        self._latest_flush = min(self._latest_flush, now + self._latest)
        self._flush_at = min(now + self._flush_after, self._latest_flush)
        self._nap.deadline = min(self._nap.deadline, self._flush_at)

    @property
    def _beat_at(self) -> float:
        return self._outlet.sent_at + self._interval
