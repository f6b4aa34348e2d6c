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
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import lru_cache
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeAlias, final

from anyio.lowlevel import EventLoopToken, current_token
from anyio.lowlevel import checkpoint_if_cancelled as anyio_checkpoint_if_cancelled

from ._runtime import Runtime

if TYPE_CHECKING:
    from ._reasons import Cancelation

_LOOP_MACHINERY = frozenset(
    {"anyio", "asyncio", "concurrent", "outcome", "selectors", "sniffio", "trio", "uvloop"}
)
_OWN_MACHINERY = frozenset(  # these put scopes in: not to be interrupted for more
    {"hother.cancelable.asgi._late_scope", "hother.cancelable.asgi._late_scope_trio"}
)
_HOMES_OF_INTERRUPT_HANDLERS = frozenset(
    {"asyncio.runners", "anyio._backends._asyncio", "trio._core._ki"}  # AnyIO's: below Python 3.11
)
_COROUTINE = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR | inspect.CO_ITERABLE_COROUTINE

_NOWHERE = object()

_running: Any  # its name is that of the backend
try:  # what AnyIO asks, too, four calls further down
    from sniffio import thread_local as _running
except ImportError:  # then AnyIO takes everything for asyncio
    from types import SimpleNamespace

    _running = SimpleNamespace(name=None)

# Where a block runs: on what, AnyIO's token for the loop, the loop's clock, the time on it, and the backend's
# own object for the task. No class: each block needs one.
Place: TypeAlias = "tuple[Runtime, Any, Any, float, Any]"

# How to find that out, by the name that the backend has given itself in this thread: Trio does that while it
# runs, and asyncio does not. To ask AnyIO for the loop takes as long as to make a scope, and
# `anyio.CancelScope` asks again, and makes each twice: so blocks use these.
_finders: dict[str | None, Callable[[], Place]] = {}
_loops: dict[str | None, Callable[[], object]] = {}  # likewise: the loop that runs here
_looks: dict[str | None, Callable[[], Awaitable[None]]] = {}  # and AnyIO's look for a cancelation


def current_place() -> Place:
    """Return where this code runs: the runtime, AnyIO's token for the loop, its clock and time, the task.

    Raises:
        RuntimeError: If no event loop runs in this thread.
    """
    try:
        return _finders[_running.name]()
    except (LookupError, RuntimeError):
        pass  # for the first time, or where no event loop runs, of which AnyIO has its own word
    return _found()()


def _found() -> Callable[[], Place]:
    loop = current_token()  # fails where none runs
    find, _loops[_running.name] = _finders_for(loop)
    _looks[_running.name] = loop.backend_class.checkpoint_if_cancelled
    _finders[_running.name] = find
    return find


def _finders_for(loop: EventLoopToken) -> tuple[Callable[[], Place], Callable[[], object]]:
    backend = loop.backend_class
    scopes = type(backend.create_cancel_scope())
    if hasattr(loop.native_token, "call_soon_threadsafe"):
        from asyncio import current_task, get_running_loop

        from ._concise import concise_cancel

        runtime = Runtime(backend, scopes, concise_cancel(scopes), lambda loop: loop.time())

        def find_in_asyncio() -> Place:
            task: Any = current_task()
            native = task.get_loop()
            return runtime, native, native, native.time(), task

        return find_in_asyncio, get_running_loop

    from trio import lowlevel

    trio_runtime = Runtime(backend, scopes, None, lambda clock: clock.current_time())

    def find_in_trio() -> Place:
        clock = lowlevel.current_clock()
        native = lowlevel.current_trio_token()
        return trio_runtime, native, clock, clock.current_time(), lowlevel.current_task()

    return find_in_trio, lowlevel.current_trio_token


def checkpoint_if_cancelled() -> Awaitable[None]:
    """Do as AnyIO's function of that name, which asks once more, four calls further down, what runs here."""
    look = _looks.get(_running.name)
    return anyio_checkpoint_if_cancelled() if look is None else look()


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
    if CallSite().is_in(loop.native_token):
        function(*args)
    else:
        call_soon(loop, function, *args)


@final
class CallSite:
    """Where a call comes from: looked up when first needed, and true for as long as that call lasts.

    For who cancels ten thousand blocks at once: to look at the stack takes longer than to cancel one, and so
    does it to say why. What is known is there to be read, without a call. It knows which function of ours
    made it, so that nobody goes through all of our own frames in between.
    """

    __slots__ = (
        "_maker",
        "cause",  # that was put into words last
        "here",  # the backend's own object for the loop, once `is_in` was asked
        "why",  # and those words
    )

    def __init__(self) -> None:
        self._maker: FrameType | None = sys._getframe(1)  # a plain function, and none of the machinery
        self.here: object = None
        self.cause: Cancelation | None = None
        self.why = ""

    def is_in(self, native_token: object) -> bool:
        """Whether it is in a task of that loop."""
        maker = self._maker
        if maker is not None:
            self._maker = None
            self.here = (_is_of_a_task(maker.f_back) and _loop_here()) or _NOWHERE
        return self.here is native_token

    def describe(self, cause: Cancelation) -> str:
        """Say what *cause* is, for debuggers; the latest is not put into words again."""
        if self.cause is not cause:
            self.cause, self.why = cause, describe(cause)
        return self.why


def describe(cause: Cancelation) -> str:
    """Say what *cause* is, for debuggers."""
    return f"{cause.reason!s}: {cause!s}"  # to format a member of an Enum takes longer


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


# What asks for the running task, by the type of the loop's native token.
_askers: dict[type, Callable[[], object]] = {}


def running_task(native_token: object) -> object:
    """Return the backend's own object for the task that runs here; ``None`` if none of that loop's does."""
    try:
        return (_askers.get(type(native_token)) or _asker(native_token))()
    except RuntimeError:  # another backend's loop runs here, or none
        return None


def _asker(native_token: object) -> Callable[[], object]:
    ask: Callable[[], object]
    if hasattr(native_token, "call_soon_threadsafe"):
        import asyncio

        ask = asyncio.current_task
    else:
        import trio

        ask = trio.lowlevel.current_task
    _askers[type(native_token)] = ask
    return ask


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


def is_running_here() -> bool:
    """Whether an event loop runs in this thread."""
    return _loop_here() is not None


def _loop_here() -> object:
    try:
        return (_loops.get(_running.name) or _loop_of_anyio)()
    except RuntimeError:  # no loop runs in this thread (anyio.NoEventLoopError is one, too)
        return None


def _loop_of_anyio() -> object:
    return current_token().native_token


def _is_of_a_task(frame: FrameType | None) -> bool:
    """Whether a task has come to *frame* in the ordinary way, and not by interrupting the loop's machinery.

    Going up the stack from there leads to the coroutine that the loop is running. If no frame of an
    event loop's machinery lies on the way, none is in the middle of anything, even if a signal handler
    does.
    """
    while frame is not None and not _is_machinery(frame.f_globals.get("__name__")):
        if frame.f_code.co_flags & _COROUTINE:
            return True
        frame = frame.f_back
    return False


@lru_cache(1024)  # a cancelation that reaches ten thousand blocks looks at the same few modules each time
def _is_machinery(module: object) -> bool:
    return str(module).partition(".")[0] in _LOOP_MACHINERY or module in _OWN_MACHINERY
