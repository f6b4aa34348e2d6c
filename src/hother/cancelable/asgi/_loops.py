"""Timers and tasks, in the event loop of a request, for whoever has no task of it at hand.

A monitor of a request is a task of its own rather than one of a task group. A request is monitored from
a moment on at which its task waits somewhere in the application, and nobody can enter a task group there.
What a task group promises is kept all the same: the request awaits the end of its monitors, whoever
cancels it meanwhile (`Exchange._wait_for`).
"""

from __future__ import annotations

from asyncio import isfuture
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakValueDictionary

from anyio.lowlevel import EventLoopToken, current_token

from .._core._wakeup import thread_safe_clock

if TYPE_CHECKING:
    from ._crowd import Crowd


class Loop:
    """An event loop, and its clock: one object for all of its requests, while there are any, or may be.

    It keeps the loop alive, as they do, and is therefore not kept for longer than that.
    """

    __slots__ = ("__weakref__", "crowd", "native", "no_context", "now", "token", "turn")

    def __init__(self, token: EventLoopToken) -> None:
        self.token = token
        self.native: object = token.native_token  #: the backend's own object for it
        self.now = thread_safe_clock(token)
        self.crowd: Crowd | None = None  #: its requests; see `_crowd.crowd_of`
        self.no_context = Context()  #: an empty one, for what the loop calls, and needs none
        #: What a coroutine waits for that but gives others a turn, where most of them do that.
        self.turn: object = _NO_TURN if has_timers(token) else _turn_of_trio()


_NO_TURN = object()


def _turn_of_trio() -> object:
    import trio

    steps = trio.lowlevel.cancel_shielded_checkpoint()  # noqa: ASYNC105 (it is but looked at)
    turn: object = steps.send(None)
    steps.close()
    return turn


_loops: WeakValueDictionary[object, Loop] = WeakValueDictionary()


def this_loop(native: object = None) -> Loop:
    """Return the event loop that runs in this thread.

    Args:
        native: The backend's own object for it, where that is known: AnyIO takes its time to find it.

    Raises:
        RuntimeError: If none does.
    """
    loop = None if native is None else _loops.get(native)
    if loop is None:
        token = current_token()
        loop = _loops.get(token.native_token)
        if loop is None:
            loop = _loops[token.native_token] = Loop(token)
    return loop


class Pending(Protocol):
    """A timer or a task that was started: what the backend itself has for it, since many of them are open."""

    def cancel(self) -> object:
        """Take it back, or end it. Too late, or twice, it does nothing. Only in the loop's own thread."""
        ...


def has_timers(loop: EventLoopToken) -> bool:
    """Whether `call_at` works. Where it does not, a task has to `sleep_and_call`."""
    return hasattr(loop.native_token, "call_at")


def call_at(
    loop: EventLoopToken, when: float, function: Callable[[], object], context: Context | None
) -> Pending:
    """Have *function* called at a time on the loop's clock, in seconds. Only in the loop's own thread.

    Args:
        loop: The event loop.
        when: The time.
        function: What to call.
        context: In which it runs; by default in a copy of the current one.

    Returns:
        What takes it back.
    """
    native: Any = loop.native_token
    return native.call_at(when, function, context=context)  # type: ignore[no-any-return]


def call_when_done(trap: Any, function: Callable[[object], object]) -> bool:
    """Have *function* called, with *trap*, once a future of asyncio is done that a coroutine waits for.

    It is called in an empty context. Not only tasks may ask for that.

    Args:
        trap: What the coroutine has yielded.
        function: What to call.

    Returns:
        Whether *trap* is a future: otherwise, it takes a task.
    """
    if not isfuture(trap):
        return False
    trap.add_done_callback(function, context=this_loop(trap.get_loop()).no_context)
    return True


def forget_when_done(trap: Any, function: Callable[[object], object]) -> None:
    """Take `call_when_done` back, if it was asked for."""
    if isfuture(trap):
        trap.remove_done_callback(function)


async def sleep_and_call(when: float, function: Callable[[], object]) -> None:
    """Call *function* at a time on the clock of Trio's event loop."""
    import trio

    await trio.sleep_until(when)
    function()


def spawn(
    loop: EventLoopToken,
    function: Callable[[], Awaitable[None]],
    context: Context,
    on_end: Callable[[object], object],
) -> Pending:
    """Start a task. Only in the loop's own thread.

    Args:
        loop: The event loop.
        function: An async function, which must not raise.
        context: What it inherits. The caller must not run in it: on Trio the task does.
        on_end: Called once the task has ended, be it cancelled before it has begun.

    Returns:
        What cancels the task.
    """
    native: Any = loop.native_token
    if not hasattr(native, "create_task"):
        return _spawn_in_trio(function, context, on_end)
    task = context.run(native.create_task, function())
    task.add_done_callback(on_end, context=context)  # which else is one more copy of the current one
    return task  # type: ignore[no-any-return]


def _spawn_in_trio(
    function: Callable[[], Awaitable[None]],
    context: Context,
    on_end: Callable[[object], object],
) -> Pending:
    import trio

    scope = trio.CancelScope()
    trio.lowlevel.spawn_system_task(_run, scope, function, on_end, name=function, context=context)
    return scope


async def _run(
    scope: Any, function: Callable[[], Awaitable[None]], on_end: Callable[[object], object]
) -> None:
    try:
        with scope:
            await function()
    finally:
        on_end(None)
