"""Tasks that work for an application as long as it is up.

They are of no task group: AnyIO keeps what it knows of a task from its first scope on, for as long as the
task lives. While it knows of any, be it of the lifespan's, each request on asyncio has to look for the scope
that is around it (`_late_scope`), which takes longer than all else that is noted of its place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import copy_context
from types import TracebackType

from ._loops import Loop, Pending
from ._monitors import Monitors


class Helpers:
    """Tasks that are started by anybody while this is entered, and have ended once it is left.

    Each has a copy of the context in which this is made.
    """

    def __init__(self, loop: Loop) -> None:
        self._tasks = Monitors(loop)
        self._tasks.context = copy_context()
        self._started: list[Pending] = []

    def start(self, function: Callable[[], Awaitable[None]]) -> None:
        """Start a task. Only in the loop's own thread; *function* must not raise."""
        self._started.append(self._tasks.spawn(function))

    async def __aenter__(self) -> Helpers:
        """Not a checkpoint."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Cancel them, and wait until they have ended, whoever cancels us. A checkpoint if any runs yet."""
        for task in self._started:
            task.cancel()
        # Whoever closes us gives nobody anything to wait in.
        if self._tasks.running and kind is not GeneratorExit:
            interruption = await self._tasks.wait()
            if interruption is not None and error is None:
                try:
                    raise interruption
                finally:
                    del interruption  # else it and this frame would keep each other
