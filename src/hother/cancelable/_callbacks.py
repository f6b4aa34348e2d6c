"""Callbacks of one operation: plain or async functions, run when it starts, progresses and ends.

By the time that a callback runs, its operation may be cancelled. So callbacks are shielded, and
bounded in time, and what they raise is reported rather than raised: an onlooker must not change what
the operation returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from ._core._report import report

if TYPE_CHECKING:
    from ._cleanup import Cleanup

BUDGET = 10.0
"""How long one async callback may take, in seconds."""


def checked(callback: Callable[..., object]) -> Callable[..., object]:
    """Return *callback*, or raise ``TypeError`` if it cannot be called."""
    if not callable(callback):
        raise TypeError(f"a callback must be callable, got {callback!r}")
    return callback


async def run_all(
    callbacks: Iterable[Callable[..., object]], *args: Any, cleanup: Cleanup | None = None
) -> None:
    """Run *callbacks* one after the other, in this task. Not a checkpoint unless one of them is."""
    errors: list[Exception] = []
    for callback in callbacks:
        try:
            await _run(cleanup, callback, *args)
        except Exception as error:
            errors.append(error)
    report(errors)


async def _run(cleanup: Cleanup | None, callback: Callable[..., object], *args: Any) -> None:
    result = callback(*args)
    if isawaitable(result):
        from ._cleanup import ShieldedScope

        with ShieldedScope(BUDGET, cleanup) as scope:
            await result
        if scope.was_cut_short:
            raise TimeoutError(f"callback {callback!r} did not end within {scope.limit}")
