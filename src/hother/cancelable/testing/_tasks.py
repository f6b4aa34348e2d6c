"""Look into tasks and coroutines, the same for asyncio and Trio."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Coroutine, Iterator
from traceback import StackSummary
from types import FrameType
from typing import Any, cast


def is_running(task: Any) -> bool:
    """Whether a task has not ended. Here and below: an `asyncio.Task` or a `trio.lowlevel.Task`."""
    if hasattr(task, "done"):
        return not task.done()
    return getattr(task.coro, "cr_frame", None) is not None


def name_of(task: Any) -> str:
    """Return a task's name."""
    return str(task.get_name() if hasattr(task, "get_name") else task.name)


def coroutine_of(task: Any) -> object:
    """Return a task's coroutine."""
    return task.get_coro() if hasattr(task, "get_coro") else task.coro


def as_coroutine(work: Awaitable[object]) -> Coroutine[Any, Any, object]:
    """Return *work* if it is a coroutine, or else one that awaits it."""
    return cast("Coroutine[Any, Any, object]", work) if isinstance(work, Coroutine) else _awaiting(work)


async def _awaiting(work: Awaitable[object]) -> object:
    return await work


def stack_of(coroutine: object) -> StackSummary:
    """Tell where a suspended coroutine stands: its own frames, from the outside in."""
    return StackSummary.extract((frame, frame.f_lineno) for frame in _frames(coroutine))


def innermost(coroutine: object) -> str:
    """Return the name of the function that waits."""
    name = ""
    for frame in _frames(coroutine):
        name = frame.f_code.co_name
    return name


def _frames(waiting: Any) -> Iterator[FrameType]:
    while waiting is not None:
        waiting = _generator_of(waiting)
        for kind, inner in (("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await")):
            frame = getattr(waiting, f"{kind}_frame", None)
            if frame is not None:
                yield frame
                waiting = getattr(waiting, inner)
                break
        else:
            return


def _generator_of(step: object) -> object:
    """Return the async generator of which *step* is one, which only the garbage collector can tell."""
    if not type(step).__name__.startswith("async_generator_a"):
        return step
    return next((thing for thing in gc.get_referents(step) if hasattr(thing, "ag_frame")), None)
