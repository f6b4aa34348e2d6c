"""What the client of a scripted request does, and when."""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, final

import anyio

from ._after import After
from ._suspension import Driven, watched
from ._tasks import as_coroutine, is_running, name_of


@final
class Script:
    """Watches an application while it serves one request, and does what is due.

    Args:
        steps: What to do, and after what.
        progress: Tells how far the request is: bytes, messages and receives.
    """

    def __init__(
        self,
        steps: dict[Callable[[], object], After | None],
        progress: Callable[[], tuple[int, int, int]],
    ) -> None:
        self._steps = {act: after for act, after in steps.items() if after is not None}
        self._progress = progress
        self._awaits = 0
        self._seconds = 0.0
        self._tasks: list[weakref.ref[Any]] = []

    async def run(self, work: Awaitable[None]) -> None:
        """Await the application's *work*."""
        self.advance()
        coroutine = as_coroutine(work)
        delays = {after.seconds for after in self._steps.values() if after.seconds}
        if not delays:
            await watched(coroutine, self)
            return
        raised: Exception | None = None
        async with anyio.create_task_group() as timers:
            for seconds in delays:
                timers.start_soon(self._wait, seconds)
            try:
                await watched(coroutine, self)
            except Exception as error:  # carried around the group, which would put it into another
                raised = error
            timers.cancel_scope.cancel()
        if raised is not None:
            try:
                raise raised
            finally:
                del raised

    async def _wait(self, seconds: float) -> None:
        await anyio.sleep(seconds)
        self._seconds = max(self._seconds, seconds)
        self.advance()

    def advance(self) -> None:
        """Do what is due by now."""
        if not self._steps:
            return
        size, messages, receives = self._progress()
        for act, after in list(self._steps.items()):
            pairs = (
                (size, after.bytes),
                (messages, after.messages),
                (receives, after.receives),
                (self._awaits, after.awaits),
                (self._seconds, after.seconds),
            )
            if any(limit is not None and reached >= limit for reached, limit in pairs):
                self._steps.pop(act, None)
                act()

    def running_tasks(self) -> Iterator[str]:
        """The names of the tasks that the application has started, and that have not ended."""
        tasks = (reference() for reference in self._tasks)
        return (name_of(task) for task in tasks if task is not None and is_running(task))

    # --- An `Onlooker`

    def suspended(self, coroutine: object, trap: object, driven: Driven[Any] | None) -> None:
        """Count the waits."""
        self._awaits += 1
        self.advance()

    def interrupted(self, error: BaseException) -> None:
        """Nothing is due because of that."""

    def started(self, task: Any) -> None:
        """Remember a task."""
        self._tasks.append(weakref.ref(task))
