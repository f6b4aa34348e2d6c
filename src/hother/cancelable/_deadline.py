"""When an operation times out, and how that is moved while it runs.

1. An operation has a timeout of its own, counted from entering it. What its block goes by is the earliest
   deadline of that, of those that it follows, and of its parents.
2. Deadlines are read by any thread, and moved only by the loop that the block runs in. Whoever moves one
   tells those that go by it, each in its own loop.
3. Clocks of different loops differ: what is handed on between them is the time that is left.
4. What happens when time is up is not decided before: whose deadline it was is looked up then.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from ._block import Block, parent_cancelation
from ._causes import lineage
from ._core._reasons import Cancelation, CancelationReason
from ._core._wakeup import run_in

if TYPE_CHECKING:
    from ._scope import Cancelable


def first_deadline(operation: Cancelable, block: Block) -> float:
    """The deadline of a block that is about to be opened, and that the operation will have."""
    assert operation._entered_at is not None
    if operation._parents or operation._leaders:
        return _earliest(operation, block)[0]
    return inf if operation._timeout is None else operation._entered_at + operation._timeout


def follow_deadlines(operation: Cancelable, block: Block) -> None:
    """Hear of it when a deadline is moved that holds for *operation*, for as long as *block* is open."""
    for above, _ in _above(operation):
        handle = object()
        followers: dict[object, Cancelable] = above.__dict__.setdefault("_followers", {})
        followers[handle] = operation
        block.on_close(partial(followers.pop, handle, None))
    update(operation)  # it may have been moved while it was asked for


def reschedule(operation: Cancelable, timeout: float | None) -> bool:
    """Give *operation* that many seconds from now. Tells whether it was not too late for that."""
    return _move(operation, _set_timeout, timeout)


def extend(operation: Cancelable, more: float) -> bool:
    """Give *operation* more seconds. Tells whether it was not too late for that."""
    return _move(operation, _add_time, more)


def remaining(operation: Cancelable) -> float | None:
    """How many seconds are left of an operation that has not been entered yet."""
    lefts = [operation._timeout, *(leader.remaining() for leader in operation._leaders)]
    return min((left for left in lefts if left is not None), default=None)


def time_out(operation: Cancelable) -> Cancelation:
    """Tell what it means that the time of *operation* is up: whose deadline it was."""
    block = operation._block
    above, is_parent = (operation, False) if block is None else _earliest(operation, block)[1]
    if above is operation:
        return _own_timeout(operation)
    above._notice_deadline()
    cause = above._token.cancelation or time_out(above)
    return parent_cancelation(above._name, cause) if is_parent else cause


def _own_timeout(operation: Cancelable) -> Cancelation:
    timeout, block = operation._timeout or 0.0, operation._block
    message = f"timed out after {round(timeout, 3):g} seconds"
    if block is None or operation._entered_at is None:
        return Cancelation(CancelationReason.TIMEOUT, message)
    at = block.started_at + operation._entered_at - block.opened_at + timeout  # not when it was noticed
    return Cancelation(CancelationReason.TIMEOUT, message, at=at)


def update(operation: Cancelable) -> None:
    """Look up the deadline of *operation* again, and tell those that go by it. In its loop."""
    block = operation._block
    assert block is not None
    if operation._token.is_cancelled:
        return  # it is known whose deadline it was
    deadline = _earliest(operation, block)[0]
    if deadline != block.deadline:
        block.set_deadline(deadline)
        tell_followers(operation)


def tell_followers(operation: Cancelable) -> None:
    """Have those that go by the deadline of *operation* look it up. Safe in any thread."""
    followers = operation._followers
    for follower in list(followers.values()) if followers else ():
        assert follower._block is not None  # it follows from then on
        run_in(follower._block.loop, update, follower)


def _earliest(operation: Cancelable, block: Block) -> tuple[float, tuple[Cancelable, bool]]:
    assert operation._entered_at is not None
    own = inf if operation._timeout is None else operation._entered_at + operation._timeout
    earliest = own, (operation, False)
    for above, is_parent in _above(operation):
        deadline = _deadline_of(above, is_parent, operation._entered_at, block)
        if deadline < earliest[0]:
            earliest = deadline, (above, is_parent)
    return earliest


def _above(operation: Cancelable) -> Iterator[tuple[Cancelable, bool]]:
    """Whose deadlines hold for *operation*, besides its own, each with whether it is a parent."""
    for part in lineage(operation):
        if part is not operation:
            yield part, False
        if part._unless is None:  # else it hears of a parent's deadline by its token, and may decline
            for parent in part._parents:
                yield parent, True


def _deadline_of(above: Cancelable, is_parent: bool, entered_at: float, block: Block) -> float:
    other = above._block
    if other is None:  # who follows an operation that was not entered has the time that it would have
        return inf if is_parent or above._timeout is None else entered_at + above._timeout
    if is_parent and above._status.is_final:  # not just closed: a stream has a block for each step
        return inf
    return block.in_own_time(other)


def _move(operation: Cancelable, change: _Change, value: float | None) -> bool:
    if operation.is_cancelled or operation._status.is_final:
        return False
    if operation._block is None:
        change(operation, value, 0.0)
        tell_followers(operation)
    else:
        run_in(operation._block.loop, _move_in_loop, operation, operation._block, change, value)
    return True


def _move_in_loop(operation: Cancelable, block: Block, change: _Change, value: float | None) -> None:
    if operation.is_cancelled:
        return  # while the loop was being reached
    assert operation._entered_at is not None
    change(operation, value, block.now() - operation._entered_at)
    update(operation)


def _set_timeout(operation: Cancelable, timeout: float | None, elapsed: float) -> None:
    operation._timeout = None if timeout is None else elapsed + timeout


def _add_time(operation: Cancelable, more: float | None, _elapsed: float) -> None:
    if operation._timeout is not None:
        operation._timeout = None if more is None else operation._timeout + more


if TYPE_CHECKING:
    from collections.abc import Callable

    _Change = Callable[[Cancelable, float | None, float], None]
