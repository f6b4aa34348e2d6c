"""See where code waits: each suspension of a coroutine, and of the tasks that it starts.

A suspension is what reaches the event loop: an ``await`` that yields to it, on Trio also one that
cannot be interrupted. An ``await`` that has its answer at once is none.

1. The coroutine itself is driven by `Driven`, step by step; nothing else is changed about it.
2. On asyncio its tasks are driven the same way: a task factory wraps those that it starts, and those
   that they start. A context variable, which tasks inherit, says which these are.
3. On Trio an instrument watches them; nothing can be put around them there.
4. All that is watched in one loop at the same time shares one factory or instrument.
"""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from anyio.lowlevel import current_token

from ._tasks import is_running

if TYPE_CHECKING:
    from trio.lowlevel import Task as TrioTask

T = TypeVar("T")


class Onlooker(Protocol):
    """Hears of the suspensions. Its methods run in the event loop's thread."""

    def suspended(self, coroutine: object, trap: object, driven: Driven[Any] | None) -> None:
        """Hear that *coroutine* is about to wait, or (a task on Trio) has just begun to.

        Args:
            coroutine: What waits: see `stack_of`.
            trap: What it tells its event loop, as far as that is known.
            driven: Whose step it is, if it is the watched coroutine itself.
        """

    def interrupted(self, error: BaseException) -> None:
        """Hear that the watched coroutine itself has *error* raised where it waits."""

    def started(self, task: Any) -> None:
        """Hear of a new task that the watched code started."""


# Who watches this code, innermost first. Tasks inherit it.
_onlookers: ContextVar[tuple[Onlooker, ...]] = ContextVar("onlookers", default=())


async def watched(work: Coroutine[Any, Any, T], onlooker: Onlooker) -> T:
    """Await *work*, and tell *onlooker* of its suspensions, and of those of the tasks that it starts."""
    token = _onlookers.set((onlooker, *_onlookers.get()))
    try:
        with _watching_tasks(onlooker):
            driven: Awaitable[T] = Driven(work, (onlooker,))
            return await driven
    finally:
        _onlookers.reset(token)


def is_watched_by(onlooker: Onlooker) -> bool:
    """Whether the code that calls this is watched by *onlooker*."""
    return onlooker in _onlookers.get()


class Driven(Coroutine[Any, Any, T]):
    """Makes the steps of a coroutine, and tells onlookers of each wait between them."""

    def __init__(
        self, work: Coroutine[Any, Any, T], onlookers: tuple[Onlooker, ...], *, is_child: bool = False
    ) -> None:
        self._work = work
        self._onlookers = onlookers
        self._is_child = is_child
        self._failure: BaseException | None = None  # to raise instead of what the loop will raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)  # what makes a coroutine look like one: cr_frame, cr_running, ...

    def __await__(self) -> Generator[Any, Any, T]:
        return cast("Generator[Any, Any, T]", self)  # it has the methods of one

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        """Go on."""
        error = getattr(value, "error", None)  # Trio sends outcomes, which the code that waits unwraps
        if isinstance(error, BaseException):
            self._tell_interrupted(error)
        return self._suspended(self._work.send(value))

    def throw(self, *error: Any) -> Any:
        """Go on with an error."""
        if self._failure is not None:
            error, self._failure = (self._failure,), None
        self._tell_interrupted(error[0])
        try:
            trap = self._work.throw(*error)
        finally:
            del error  # it holds its traceback, which holds this frame
        return self._suspended(trap)

    def _tell_interrupted(self, error: BaseException) -> None:
        if not self._is_child:
            for onlooker in self._onlookers:
                onlooker.interrupted(error)

    def close(self) -> None:
        """Give the coroutine up, whatever it has to say to that."""
        with suppress(RuntimeError):  # it goes on waiting
            self._work.close()

    def fail(self, trap: Any, error: BaseException) -> bool:
        """Call off the wait that *trap* asks for, and raise *error* there, if that is possible."""
        is_off = _call_off(trap, error)
        if is_off:
            self._failure = error
        return is_off

    def give_up(self, trap: Any, error: Exception) -> None:
        """End with *error* instead of the coroutine, which is asked to close, and not asked again."""
        _call_off(trap, error)
        self.close()
        self._failure = None
        raise error

    def _suspended(self, trap: Any) -> Any:
        for onlooker in self._onlookers:
            onlooker.suspended(self._work, trap, None if self._is_child else self)
        if self._failure is not None and _is_trios(trap):  # Trio does not hear of a wait that was called off
            return self.throw()
        return trap


def can_fail(trap: object) -> bool:
    """Whether *trap* asks for something that may fail to come, rather than only for a turn."""
    return _is_trios(trap) or hasattr(trap, "_asyncio_future_blocking")


def _is_trios(trap: object) -> bool:
    return hasattr(trap, "abort_func")


def _call_off(trap: Any, error: BaseException) -> bool:
    if not _is_trios(trap):
        return bool(can_fail(trap) and trap.cancel())  # the task hears of that, as of any cancelled future
    from trio.lowlevel import Abort

    def refuse(_: object) -> Abort:
        return Abort.FAILED

    answer: Abort = trap.abort_func(_raising(error))
    if answer is Abort.FAILED:  # nobody may ask twice
        object.__setattr__(trap, "abort_func", refuse)
    return answer is Abort.SUCCEEDED


def _raising(error: BaseException) -> Callable[[], None]:
    def raise_error() -> None:
        raise error

    return raise_error


_watches: weakref.WeakKeyDictionary[Any, _AsyncioWatch | _TrioWatch] = weakref.WeakKeyDictionary()


@contextmanager
def _watching_tasks(onlooker: Onlooker) -> Generator[None, None, None]:
    loop: Any = current_token().native_token
    if loop not in _watches:
        _watches[loop] = _AsyncioWatch(loop) if hasattr(loop, "set_task_factory") else _TrioWatch()
    watch = _watches[loop]
    watch.add(onlooker)
    try:
        yield
    finally:
        watch.remove(onlooker)


class _AsyncioWatch:
    """A task factory, while there are onlookers."""

    def __init__(self, loop: Any) -> None:
        self._loop = weakref.proxy(loop)
        self._number = 0
        self._previous: Any = None

    def add(self, _: Onlooker) -> None:
        if not self._number:
            self._previous = self._loop.get_task_factory()
            self._loop.set_task_factory(self._make)
        self._number += 1

    def remove(self, _: Onlooker) -> None:
        self._number -= 1
        if not self._number:
            self._loop.set_task_factory(self._previous)

    def _make(self, loop: Any, work: Any, **options: Any) -> Any:
        from asyncio import Task

        context = options.get("context")
        onlookers = _onlookers.get() if context is None else context.get(_onlookers, ())
        if not onlookers and self._previous is not None:
            return self._previous(loop, work, **options)
        if onlookers:
            work = Driven(work, onlookers, is_child=True)
        task: Any = Task(work, loop=loop, **options)
        for onlooker in onlookers:
            onlooker.started(task)
        return task


class _TrioWatch:
    """An instrument, while there are onlookers.

    It does not inherit from Trio's class, since that would have to be imported.
    """

    def __init__(self) -> None:
        self._driven: dict[Onlooker, TrioTask] = {}

    def add(self, onlooker: Onlooker) -> None:
        from trio.lowlevel import add_instrument, current_task

        if not self._driven:
            instrument: Any = self
            add_instrument(instrument)
        self._driven[onlooker] = current_task()

    def remove(self, onlooker: Onlooker) -> None:
        from trio.lowlevel import remove_instrument

        del self._driven[onlooker]
        if not self._driven:
            instrument: Any = self
            remove_instrument(instrument)

    def task_spawned(self, task: TrioTask) -> None:
        """Hear of a new task."""
        for onlooker in task.context.get(_onlookers, ()):
            onlooker.started(task)

    def after_task_step(self, task: TrioTask) -> None:
        """Hear that a task has made a step."""
        onlookers = task.context.get(_onlookers, ())
        if onlookers and is_running(task):
            for onlooker in onlookers:
                if self._driven.get(onlooker) is not task:
                    onlooker.suspended(task.coro, None, None)
