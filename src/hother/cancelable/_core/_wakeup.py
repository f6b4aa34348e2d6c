"""Reach an event loop from anywhere: the one module that knows asyncio from Trio.

Cancel scopes may only be touched by the thread that runs their loop, and only between two steps of
the loop's own machinery. A thread, a signal handler and a finalizer are outside of that, although the
latter two may run *in* that thread: they can interrupt the loop in the middle of anything. Both
backends offer one function that is safe there and wakes an idle loop; everyone goes through it who
cannot be shown to be plain code of one of the loop's tasks.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from anyio.lowlevel import EventLoopToken, current_token

_LOOP_MACHINERY = frozenset(
    {"anyio", "asyncio", "concurrent", "outcome", "selectors", "sniffio", "trio", "uvloop"}
)
_HOMES_OF_INTERRUPT_HANDLERS = frozenset(
    {"asyncio.runners", "anyio._backends._asyncio", "trio._core._ki"}  # AnyIO's: below Python 3.11
)
_COROUTINE = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR | inspect.CO_ITERABLE_COROUTINE


def call_soon(loop: EventLoopToken, function: Callable[..., object], *args: Any) -> None:
    """Have *function* called by *loop*, and wake the loop if it is idle.

    Never blocks. Safe in any thread, in signal handlers and in finalizers. If the loop has ended,
    nothing happens: whoever waited there has gone with it.
    """
    native: Any = loop.native_token
    schedule = getattr(native, "run_sync_soon", None) or native.call_soon_threadsafe
    with suppress(RuntimeError):  # asyncio: "Event loop is closed"; trio.RunFinishedError is one, too
        schedule(function, *args)


def run_in(loop: EventLoopToken, function: Callable[..., object], *args: Any) -> None:
    """Call *function* here and now if this is a task of *loop*, else have *loop* call it soon.

    Never blocks. Safe in any thread, in signal handlers and in finalizers.
    """
    if is_running_here(loop) and _called_from_a_task():
        function(*args)
    else:
        call_soon(loop, function, *args)


def has_ended(loop: EventLoopToken) -> bool:
    """Whether *loop* was closed: what still waits in it will never go on. Safe in any thread."""
    native: Any = loop.native_token
    is_closed = getattr(native, "is_closed", None)  # Trio has none: it ends all of its tasks first
    return is_closed is not None and bool(is_closed())


def call_at(
    loop: EventLoopToken, when: float, function: Callable[..., object], *args: Any
) -> Callable[[], object]:
    """Have *function* called at a time on the clock of *loop*, which runs here; perhaps a bit early.

    It must not raise. When the loop ends before, nothing happens. Never blocks.

    Returns:
        A function that takes it back, for the loop's own thread. Too late, or twice, it does nothing.
    """
    native: Any = loop.native_token
    if hasattr(native, "call_at"):
        return native.call_at(when, function, *args).cancel  # type: ignore[no-any-return]
    import trio

    taken_back = trio.Event()
    trio.lowlevel.spawn_system_task(_call_unless, taken_back, when, function, args, name=call_at)
    return taken_back.set


async def _call_unless(taken_back: Any, when: float, function: Callable[..., object], args: Any) -> None:
    """Trio has no timers but those of tasks. Its system tasks end with the run, without being waited for."""
    import trio

    with trio.move_on_at(when):
        await taken_back.wait()
    if not taken_back.is_set():
        function(*args)


def task_id(loop: EventLoopToken) -> int | None:
    """Return what tells the task that runs here from the others of *loop*; ``None`` if another loop runs here.

    Once a task has ended, another one may have its id.
    """
    with suppress(RuntimeError):  # another backend's loop, or none
        if hasattr(loop.native_token, "call_soon_threadsafe"):
            import asyncio

            return id(asyncio.current_task())
        import trio

        return id(trio.lowlevel.current_task())
    return None


def thread_safe_clock(loop: EventLoopToken) -> Callable[[], float]:
    """Return the clock of *loop*, which must run in this thread, as a function that any thread may call."""
    native: Any = loop.native_token
    if hasattr(native, "call_soon_threadsafe"):
        return native.time  # type: ignore[no-any-return]
    import trio

    return trio.lowlevel.current_clock().current_time


def is_interrupt_handler(handler: Callable[..., object]) -> bool:
    """Whether *handler* is what a backend installs for Ctrl-C in place of Python's default."""
    function = getattr(handler, "func", handler)  # asyncio's is a partial
    return getattr(function, "__module__", None) in _HOMES_OF_INTERRUPT_HANDLERS


def is_running_here(loop: EventLoopToken | None = None) -> bool:
    """Whether *loop*, or any, runs in this thread."""
    try:
        current = current_token()
    except RuntimeError:  # no loop runs in this thread (anyio.NoEventLoopError is one, too)
        return False
    return loop is None or current.native_token is loop.native_token


def _called_from_a_task() -> bool:
    """Whether a task called us in the ordinary way, rather than by interrupting the loop's machinery.

    Going up the stack from here leads to the coroutine that the loop is running. If no frame of an
    event loop's machinery lies on the way, none is in the middle of anything, even if a signal handler
    does.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not _is_machinery(frame):
        if frame.f_code.co_flags & _COROUTINE:
            return True
        frame = frame.f_back
    return False


def _is_machinery(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] in _LOOP_MACHINERY
