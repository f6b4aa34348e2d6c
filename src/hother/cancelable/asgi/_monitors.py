"""What works for a request while its application waits: the tasks, and the loop that they run in.

Most requests never have any.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import anyio
from anyio import CancelScope

from ._loops import Loop, Pending, call_at, has_timers, sleep_and_call, spawn

if TYPE_CHECKING:
    from ._crowd import Crowd


class Monitors:
    """The tasks of a request, and where they run."""

    __slots__ = ("_all_ended", "began", "context", "crowd", "loop", "reading", "running")

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        #: When the application began to wait, on the loop's clock, in seconds: about when the request began.
        self.began = inf
        self.context: Context | None = None  #: in which the application waits
        self.crowd: Crowd | None = None  #: that of the loop, if the request is one of it
        self.reading: Pending | None = None  #: the task that reads
        self.running = 0  #: how many there are to wait for
        self._all_ended: anyio.Event | None = None

    def spawn(self, monitor: Callable[[], Awaitable[None]], context: Context | None = None) -> Pending:
        """Start a task, in *context* or a copy of the request's own. The request does not end before it."""
        if context is None:
            context = copy_context() if self.context is None else self.context.copy()
        self.running += 1
        return spawn(self.loop.token, monitor, context, self.one_ended)

    def call_at(self, when: float, function: Callable[[], object]) -> Pending:
        """Have *function* called at a time on the loop's clock. Returns what takes it back."""
        if has_timers(self.loop.token):
            # In the request's context, which need not be the current one: in a crowd, one wakes the others.
            return call_at(self.loop.token, when, function, self.context)
        return self.spawn(partial(sleep_and_call, when, function))

    def expect_one_more(self) -> None:
        """Have `wait` wait for one more call of `one_ended`."""
        self.running += 1

    def one_ended(self, _: object) -> None:
        """A task that is waited for has ended."""
        self.running -= 1
        if not self.running and self._all_ended is not None:
            self._all_ended.set()

    async def wait(self) -> BaseException | None:
        """Wait, whoever cancels us: nothing of a request outlives it, and what they do is soon over.

        Returns:
            What has interrupted us meanwhile.
        """
        interruption: BaseException | None = None
        with CancelScope(shield=True):
            while self.running:
                self._all_ended = anyio.Event()
                try:
                    await self._all_ended.wait()
                except anyio.get_cancelled_exc_class() as error:  # a native one goes through shields
                    interruption = error
        return interruption
