"""How an operation ended: what leaves its block, and whose doing that was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import get_cancelled_exc_class

from ._block import Block
from ._callbacks import run_all
from ._core._errors import CancelationError, leaves
from ._core._lifecycle import CANCELLED, OperationStatus

if TYPE_CHECKING:
    from ._scope import Cancelable

_EVENTS = {
    OperationStatus.COMPLETED: "complete",
    OperationStatus.CANCELLED: "cancel",
    OperationStatus.FAILED: "error",
}


def settle(operation: Cancelable, block: Block, left: BaseException | None, stopped: bool) -> None:
    """Settle how *operation* ended, if not as it should, and tell its observers.

    Args:
        operation: The operation.
        block: Its block, which was left.
        left: What goes on from there.
        stopped: Whether its own cancelation ended the block.
    """
    if stopped:
        operation._settle_stopped()
        operation._become(CANCELLED)
    elif left is not None and all(_is_from_outside(block, leaf) for leaf in leaves(left)):
        operation._settle(block.outside_cancelation())
        operation._become(CANCELLED)
    else:
        operation._error = repr(left)
        operation._become(OperationStatus.FAILED)


async def tell(operation: Cancelable, left: BaseException | None) -> None:
    """Tell the callbacks how *operation* ended, and what goes on from there."""
    callbacks = operation._callbacks.get(_EVENTS[operation._status])
    if callbacks:
        if operation._cleanup is not None and operation._status is OperationStatus.CANCELLED:
            operation._cleanup.begin_now()
        outcome = () if operation._error is None else (left,)
        await run_all(callbacks, operation.context, *outcome, cleanup=operation._cleanup)


def is_own_error(operation: Cancelable, error: BaseException | None) -> bool:
    """Whether ``check()`` raised *error* in the block, for the very cancelation of *operation*."""
    return error is not None and all(
        isinstance(leaf, CancelationError) and leaf.cancelation is operation.cancelation
        for leaf in leaves(error)
    )


def raise_again(error: BaseException) -> None:
    """Raise *error* as it is: being raised here is no part of its story."""
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context


def _is_from_outside(block: Block, error: BaseException) -> bool:
    """Whether *error* is a cancelation of what is around the block, by a scope or by ``check()``."""
    if isinstance(error, CancelationError):
        causes = [outer.cancelation for outer in block.enclosing_owners()]
        return any(error.cancelation is cause for cause in causes)
    return isinstance(error, get_cancelled_exc_class())
