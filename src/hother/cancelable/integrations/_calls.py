"""One call in the name of an operation, in whatever task it waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from math import inf
from types import TracebackType
from typing import Any, TypeVar

from anyio import CancelScope
from anyio.lowlevel import current_token

from .._core._lifecycle import OperationStatus
from .._core._reasons import Cancelation
from .._core._wakeup import run_in
from .._parts import is_around
from .._scope import Cancelable

T = TypeVar("T")


async def call(operation: Cancelable, function: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Await *function* as a part of *operation*, which interrupts it.

    In a shielded section of the operation's block nothing is interrupted. If the operation was never
    entered, its timeout is this call's.

    Raises:
        CancelationError: If the operation is cancelled, or was.
    """
    status = operation.status
    if status is OperationStatus.SHIELDED and is_around(operation):
        return await function(*args)
    operation.check()
    if status is OperationStatus.PENDING or (not status.is_final and operation.deadline != inf):
        async with operation.follow():  # which knows when the deadline is moved
            return await function(*args)
    with _Part(operation):
        return await function(*args)


class _Part:
    """A scope that ends with an operation that has no deadline, and costs less than a block of its own."""

    __slots__ = ("_operation", "_remove_callback", "_scope")

    def __init__(self, operation: Cancelable) -> None:
        self._operation = operation
        self._scope = CancelScope()

    def __enter__(self) -> None:
        self._scope.__enter__()
        # Later than the block's own callback: where both lie around this code, the block comes first.
        stop = partial(run_in, current_token(), _cancel, self._scope)
        self._remove_callback = self._operation.token.add_callback(stop)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._remove_callback()
        self._scope.__exit__(exc_type, exc, traceback)
        if self._scope.cancelled_caught:
            self._operation.check()


def _cancel(scope: CancelScope, cancelation: Cancelation) -> None:
    """Runs in the loop, perhaps when the call is over already."""
    scope.cancel(f"{cancelation.reason}: {cancelation}")
