"""One run of swept code, interrupted where it waits for the nth time."""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from itertools import count
from typing import Any, final

from anyio import CancelScope, create_task_group, get_cancelled_exc_class, wait_all_tasks_blocked

from .._block import open_blocks
from .._core._errors import CancelationError
from .._core._observers import Progress, Transition, add_observer
from .._scope import Cancelable, current_operation
from ._checkpoint import Checkpoint, Interruption
from ._suspension import Driven, can_fail, is_watched_by, watched
from ._tasks import as_coroutine, coroutine_of, innermost, is_running, name_of, stack_of

_numbers = count(1)

PATIENCE = 10_000
"""How many times a run may still wait after it was interrupted."""


class NeverEndsError(Exception):
    """The run was given up: it goes on and on after it was interrupted."""


@final
class Attempt:
    """Runs *function* once, in a task of its own, and interrupts it.

    Args:
        function: What to run.
        number: At which of its suspensions.
        how: The way.
        cancel: What to call, if that is the way.
        error: What to raise, if that is the way.
    """

    def __init__(
        self,
        function: Callable[[], Awaitable[object]],
        number: int,
        how: Interruption | None,
        cancel: Callable[[], object] | None = None,
        error: Exception | None = None,
    ) -> None:
        self._function = function
        self._number = number
        self._how: Interruption | None = how
        self._cancel = cancel
        self.error = error
        # The reason of the cancelation, by which it is told from others.
        self._mark = f"sweep {next(_numbers)}, checkpoint {number}!"
        self._waits = 0
        self._is_over = False
        self._tasks: list[weakref.ref[Any]] = []
        self._operations: dict[str, str] = {}  # those that were entered and not left, with their names
        self.reached = False  #: whether it waited so often
        self.checkpoint: Checkpoint | None = None  #: where it was interrupted
        self.was_told = False  #: whether the cancelation was raised in the function
        self.was_cancelled = False  #: whether it ended with that
        self.raised: Exception | None = None  #: what it ended with otherwise
        self.failure: Exception | None = None  #: what interrupting it raised
        self.left: list[str] = []  #: what was left behind

    async def run(self) -> None:
        """Make the attempt."""
        remove_observer = add_observer(self)
        try:
            async with create_task_group() as tasks:
                tasks.start_soon(self._run)
        finally:
            remove_observer()
        if any(self._running_tasks()):
            await wait_all_tasks_blocked()  # some may be about to end
        for task in self._running_tasks():
            where = "".join(stack_of(coroutine_of(task)).format()).rstrip()
            self.left.append(f"the task {name_of(task)}, which waits here:\n{where}")
        self.left += (f"the operation {name}, whose block was not left" for name in self._operations.values())

    async def _run(self) -> None:
        around = open_blocks()
        try:
            await _WAYS[self._how](self)
        except Exception as error:
            self.raised = error
        except get_cancelled_exc_class():
            self.was_cancelled = True
            raise
        finally:
            self._is_over = True
            self._cancel = None  # it may hold the task, with its error and all that was in its frames
            if any(block not in around for block in open_blocks()):
                self.left.append(
                    f"a block among the current ones; the current operation is {current_operation()}"
                )

    async def _call(self) -> object:
        return await watched(as_coroutine(self._function()), self)

    # --- The ways to interrupt it

    async def _in_a_scope(self) -> None:
        with CancelScope() as scope:
            self._cancel = partial(scope.cancel, self._mark)
            await self._call()
        self.was_cancelled = scope.cancelled_caught

    async def _in_an_operation(self) -> None:
        operation = Cancelable(name="swept")
        self._cancel = partial(operation.cancel, message=self._mark)
        try:
            async with operation:
                await self._call()
        except CancelationError as error:
            if error.cancelation is not operation.cancelation:
                raise
            self.was_cancelled = True

    async def _in_a_task(self) -> None:
        from asyncio import current_task

        task = current_task()
        assert task is not None
        self._cancel = partial(task.cancel, self._mark)
        await self._call()

    async def _as_it_is(self) -> None:
        await self._call()

    # --- An `Onlooker`

    def suspended(self, coroutine: object, trap: object, driven: Driven[Any] | None) -> None:
        """Count the waits, and interrupt the one that is meant."""
        if self._is_over or (self._how == "error" and not _may_fail(coroutine, trap, driven)):
            return
        self._waits += 1
        if self._waits == self._number:
            self.reached = True
            self.checkpoint = Checkpoint(self._number, self._how, stack_of(coroutine), driven is None)
            self._interrupt(trap, driven)
        elif driven is not None and self._waits - self._number > PATIENCE:
            self._is_over = True
            driven.give_up(trap, NeverEndsError())

    def _interrupt(self, trap: object, driven: Driven[Any] | None) -> None:
        if self.error is None:
            assert self._cancel is not None
            try:
                self._cancel()
            except Exception as error:  # of a callback: the event loop is no place for it
                self.failure = error
        elif driven is not None and not driven.fail(trap, self.error):
            self.checkpoint = None  # it waits for what cannot fail

    def interrupted(self, error: BaseException) -> None:
        """See whether the cancelation has got there."""
        self.was_told |= self._mark in str(error)

    def started(self, task: Any) -> None:
        """Remember a task."""
        self._tasks.append(weakref.ref(task))

    def _running_tasks(self) -> Iterator[Any]:
        tasks = (reference() for reference in self._tasks)
        return (task for task in tasks if task is not None and is_running(task))

    # --- An `Observer`

    def on_transition(self, event: Transition) -> None:
        """Keep account of the blocks that the function has entered."""
        context = event.context
        if context.status.is_final:
            self._operations.pop(context.id, None)
        elif is_watched_by(self):
            self._operations[context.id] = context.name or context.id

    def on_progress(self, event: Progress) -> None:
        """Progress leaves nothing behind."""


def _may_fail(coroutine: object, trap: object, driven: Driven[Any] | None) -> bool:
    """Whether the wait is one that may fail; that of a task group for its tasks must not."""
    return driven is not None and can_fail(trap) and innermost(coroutine) not in {"__aexit__", "_aexit"}


_WAYS: dict[Interruption | None, Callable[[Attempt], Awaitable[None]]] = {
    "scope": Attempt._in_a_scope,
    "operation": Attempt._in_an_operation,
    "native": Attempt._in_a_task,
    "error": Attempt._as_it_is,
    None: Attempt._as_it_is,
}
