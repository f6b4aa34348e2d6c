"""Where code stands to an operation: in its block, elsewhere, or in a block around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING

from ._core._errors import LifecycleError
from ._core._lifecycle import OperationStatus
from ._core._reasons import Cancelation

if TYPE_CHECKING:
    from ._block import Block
    from ._scope import Cancelable


def block_around(operation: Cancelable) -> Block | None:
    """The block of *operation*, if this code runs there, so that its scope is enough to interrupt it.

    A task that was started from there may belong to a task group around the block, which nobody can tell. So
    it has a block of its own; unless there is a protected section, which must not be interrupted in any task.
    """
    block = operation._block
    if block is None or not (block.is_of_this_task or (operation._shields > 0 and block.is_around)):
        return None
    return block


def is_around(operation: Cancelable) -> bool:
    """Whether this code runs in the block of *operation*, as `block_around` has it."""
    return block_around(operation) is not None


def part_of(operation: Cancelable) -> AbstractAsyncContextManager[object]:
    """The block that work of *operation* belongs in: its own, if this code runs there."""
    return nullcontext() if is_around(operation) else follow_alive(operation)


def follow_alive(operation: Cancelable) -> Cancelable:
    """Make an operation that follows *operation*.

    Raises:
        CancelationError: If *operation* was cancelled.
        LifecycleError: If it has ended otherwise.
    """
    operation.check()
    if operation._status.is_final:
        raise LifecycleError(f"an operation that is {operation._status} takes up no more work")
    return operation.follow()


def cancelations_around(operation: Cancelable) -> Iterator[Cancelation]:
    """Why operations around *operation* were cancelled, as far as that holds for its block, too."""
    if operation._block is None or operation._block.is_closed:
        return
    for outer in operation._block.enclosing_owners():
        if outer.status is OperationStatus.SHIELDED:
            return
        if outer.cancelation is not None:
            yield outer.cancelation
