"""Work for an operation in a worker thread.

AnyIO hands the context to the thread, and the current operation is part of it. What is added here: in
a thread that was abandoned, the operation stays the current one, although its block was left. That
thread is the one that needs most to be told to stop.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from anyio import to_thread

from ._block import current_owner, keep_current

T = TypeVar("T")


async def run_in_thread(function: Callable[[], T], *, abandon_on_cancel: bool) -> T:
    """Call *function* in a worker thread, which sees the current operation for as long as it runs."""
    work = partial(_work_for, current_owner(), function)
    return await to_thread.run_sync(work, abandon_on_cancel=abandon_on_cancel)


def _work_for(owner: Any, function: Callable[[], T]) -> T:
    keep_current(owner)  # in the thread's own copy of the context
    return function()
