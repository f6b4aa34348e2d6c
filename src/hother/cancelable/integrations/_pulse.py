"""What happens in a stream while its generator is quiet: small pieces are sent, and heartbeats.

A task of its own, beside the generator: a step of a generator that was interrupted to do something
else could not be taken up again.
"""

from __future__ import annotations

from math import inf

from anyio import CancelScope, current_time, sleep_forever

from ._outlet import Outlet

MAX_WAIT = 1.0
"""How long a small piece waits at most for more to come, in seconds, if there is always a little more."""


class Pulse:
    """Sends what waits for too long, and something now and then.

    Args:
        outlet: Where to send it.
        flush_after: How long small pieces wait for the next one, in seconds.
        heartbeat: What to send when nothing was sent for a while.
        interval: How long a while is, in seconds; infinite for no heartbeat.
    """

    def __init__(self, outlet: Outlet, *, flush_after: float, heartbeat: bytes, interval: float) -> None:
        self._outlet = outlet
        self._flush_after = flush_after
        self._heartbeat = heartbeat
        self._interval = interval
        self._nap = CancelScope()
        self._flush_at = inf
        self._latest_flush = inf
        self._beaten_at = -inf

    def notice(self) -> None:
        """Something was added, or sent. Never blocks."""
        if not self._outlet.has_waiting:
            self._flush_at = self._latest_flush = inf
            return
        now = current_time()
        self._latest_flush = min(self._latest_flush, now + max(MAX_WAIT, self._flush_after))
        self._flush_at = min(now + self._flush_after, self._latest_flush)
        self._nap.deadline = min(self._nap.deadline, self._flush_at)

    async def run(self) -> None:
        """Go on for ever."""
        while True:
            # Its deadline may be moved forward while this waits.
            with CancelScope(deadline=min(self._flush_at, self._beat_at)) as self._nap:
                await sleep_forever()
            now = current_time()
            if now >= self._flush_at:
                await self._outlet.flush(everything=True)
                self.notice()
            if now >= self._beat_at:
                self._beaten_at = now
                if not self._outlet.is_busy:  # else there is one that has yet to get through
                    self._outlet.add(self._heartbeat)
                    await self._outlet.flush(everything=True)

    @property
    def _beat_at(self) -> float:
        return max(self._outlet.sent_at, self._beaten_at) + self._interval
