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
from typing import Any

from anyio.lowlevel import EventLoopToken, current_token

_PACKAGE = __name__.partition("._core")[0]
_LOOP_MACHINERY = frozenset(
    {"anyio", "asyncio", "concurrent", "outcome", "selectors", "sniffio", "trio", "uvloop"}
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
    if _is_running_here(loop) and _called_from_a_task():
        function(*args)
    else:
        call_soon(loop, function, *args)


def thread_safe_clock(loop: EventLoopToken) -> Callable[[], float]:
    """Return the clock of *loop*, which must run in this thread, as a function that any thread may call."""
    native: Any = loop.native_token
    if hasattr(native, "call_soon_threadsafe"):
        return native.time  # type: ignore[no-any-return]
    import trio

    return trio.lowlevel.current_clock().current_time


def _is_running_here(loop: EventLoopToken) -> bool:
    try:
        return current_token().native_token is loop.native_token
    except RuntimeError:  # no loop runs in this thread (anyio.NoEventLoopError is one, too)
        return False


def _called_from_a_task() -> bool:
    """Whether a task called us in the ordinary way, rather than by having been interrupted.

    Going up the stack from here, the first frames are this package's. Where the next one that is a
    coroutine is reached without passing through an event loop's machinery (or this package again),
    that machinery is not in the middle of anything, even if a signal handler lies between.
    """
    frame = sys._getframe(1)
    while _is_ours(frame.f_globals):
        if frame.f_code.co_flags & _COROUTINE:
            return True
        if frame.f_back is None:
            return False
        frame = frame.f_back
    while not (frame.f_code.co_flags & _COROUTINE):
        if frame.f_back is None or _is_machinery(frame.f_globals):
            return False
        frame = frame.f_back
    return not _is_machinery(frame.f_globals)


def _is_ours(module: dict[str, Any]) -> bool:
    name = str(module.get("__name__"))
    return name == _PACKAGE or name.startswith(_PACKAGE + ".")


def _is_machinery(module: dict[str, Any]) -> bool:
    return _is_ours(module) or str(module.get("__name__")).partition(".")[0] in _LOOP_MACHINERY
