"""Work that runs to its end once it has begun, whatever happens to the task that waits for it.

1. The work has a task of its own, in a task group that is entered and left right here. A shield keeps
   AnyIO's cancelations from both tasks. What asyncio's ``Task.cancel()`` interrupts is the waiting, not the
   work; and the task group waits on until the work is over, before the interruption goes on.
2. Between being asked for and having begun there is no checkpoint: the task group starts what it was given,
   even if it is cancelled at once, and the shield is entered in the first step.
3. An operation knows of the sections that run in other tasks, and waits for them before its block is left.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar, cast, final

from anyio import CancelScope, Event, create_task_group

from ._cleanup import Cleanup, ShieldedScope
from ._core._errors import CancelationError, TimeoutCancelation
from ._core._reasons import Cancelation, CancelationReason
from ._core._report import report

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

T = TypeVar("T")


async def run_to_end(
    function: Callable[[], Awaitable[T]], budget: float | None = None, cleanup: Cleanup | None = None
) -> T:
    """Await *function* in a task of its own. Not interrupted, but by its budget.

    Raises:
        TimeoutCancelation: If the budget was used up.
    """
    work = _Work(function, ShieldedScope(budget, cleanup))
    try:
        with CancelScope(shield=True):
            async with create_task_group() as tasks:
                tasks.start_soon(work.run)
    except BaseException as error:
        work.report_error()  # there is something more urgent to raise
        if not isinstance(error, BaseExceptionGroup):
            raise
        # Ctrl-C in the work, and the like: the task group has wrapped it.
        found = cast("BaseExceptionGroup[BaseException]", error).exceptions
        urgent: BaseException = found[0] if len(found) == 1 else cast("BaseException", error)
    else:
        return work.result()
    raise urgent  # here, where nothing becomes its context


@final
class Sections:
    """Counts the critical sections of an operation that run at the moment."""

    __slots__ = ("_count", "_none_left")

    def __init__(self) -> None:
        self._count = 0
        self._none_left: Event | None = None

    def __enter__(self) -> None:
        self._count += 1

    def __exit__(self, *_: object) -> None:
        self._count -= 1
        if not self._count and self._none_left is not None:
            self._none_left.set()

    async def wait(self) -> None:
        """Wait until no section runs, and let nothing interrupt that. Not a checkpoint if none does."""
        while self._count:
            self._none_left = Event()
            await run_to_end(self._none_left.wait)


@final
class _Work(Generic[T]):
    """What a task does for another one, and what has become of it."""

    __slots__ = ("_error", "_function", "_scope", "_values")

    def __init__(self, function: Callable[[], Awaitable[T]], scope: ShieldedScope) -> None:
        self._function = function
        self._scope = scope
        self._values: list[T] = []
        self._error: Exception | None = None

    async def run(self) -> None:
        try:
            with self._scope:
                self._values.append(await self._function())
        except Exception as error:  # not for the task group, which would wrap it
            self._error = error

    def report_error(self) -> None:
        if self._error is not None:
            report([self._error])

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        if self._scope.was_cut_short:
            message = f"a critical section used up {self._scope.limit}"
            raise TimeoutCancelation(Cancelation(CancelationReason.TIMEOUT, message))
        if not self._values:
            message = "the task of a critical section was cancelled"
            raise CancelationError(Cancelation(CancelationReason.EXTERNAL, message))
        return self._values[0]
