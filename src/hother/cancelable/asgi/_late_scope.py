"""Cancel scopes that cost less than AnyIO's own, as long as nobody cancels them.

Most requests are over before anything happens to them, and so is what they send. To enter three scopes
for each would be the largest part of what this library costs them. So only the place is noted,
and the scope is put in there once it is needed, around all scopes that were opened since:

* **Around the application**, when it waits for the first time, or somebody cancels it before. From then on
  it has to be there: threads and tasks remember the scope in which they were started, and wherever they
  are started in a first step, it is in a scope that this step has opened and still holds open. If the first
  that it waits for is a future, the second step is like the first: AnyIO gives others a turn, which is
  another thing to wait for, before it starts a thread. Many applications need no third.
* **Around a message that is sent**, when somebody wants to cancel that: from outside, while the task waits.

On Trio, tasks and threads remember no scopes, but where they are in a tree of them. So there, either is put
in only when somebody wants to cancel it.

AnyIO has no public way to do that, nor has Trio. This module alone knows how AnyIO's scopes hang together,
and `_late_scope_trio` how Trio's do. Both are relied on only after a look and a trial, once per process
(`_put_in_works`). If they have changed, the scope is entered at once.

What is put in late differs in nothing from a scope that was entered at its place:

* Scopes form a chain, from a task's innermost one outwards, and every question (is it cancelled, when is
  the deadline, where does a shield end) is answered by walking along it at the time of the question. The
  chains of tasks that were started inside meanwhile lead through scopes of this one.
* To deliver a cancelation, each scope knows its children, and the tasks that are directly in it. The new
  one takes over the child, or the task if there is no child.
* A scope tells native cancels (``Task.cancel()``) from its own by how many there were when it was
  entered. That number is noted with the place.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import _get_running_loop, current_task
from collections.abc import Callable
from functools import lru_cache
from itertools import count
from math import inf
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast
from weakref import ref

import anyio

if TYPE_CHECKING:
    from asyncio import Task


class OpenScope(Protocol):
    """What an open scope can do. It is closed by the task that opened it, and once."""

    @property
    def deadline(self) -> float:
        """When it is cancelled, on the loop's clock, in seconds. Can be set at any time."""
        ...

    @deadline.setter
    def deadline(self, value: float, /) -> None: ...

    @property
    def cancel_called(self) -> bool:
        """Whether it was cancelled."""
        ...

    def cancel(self, reason: str | None = None) -> None:
        """Cancel what runs in it. Only in the loop's own thread, but not only in tasks."""
        ...

    def close(self, error: BaseException | None) -> bool:
        """Leave it with *error*.

        Returns:
            Whether all of *error* was its own cancelation, and ends here.

        Raises:
            BaseException: What was with that cancelation in an exception group.
        """
        ...


_COUNTS_CANCELS = sys.version_info >= (3, 11)  # whether tasks of asyncio know how often they were cancelled

_works: bool | None = None  # whether scopes can be put in; not known before the first use ...
_works_in_trio: bool | None = None  # ... of either backend
_lock = Lock()
_serials = count(1)
OUTERMOST = 0
"""The number of a place that is outside of all others that a task may note where it noted this one."""
_new: Any = object.__new__  # AnyIO's own asks for the backend, and nothing else
_states: Any = {}  # AnyIO's states of tasks, by weak references to these ...
_forget: Any = None  # ... what takes those of dead tasks away ...
_scope_type: Any = None  # ... and its class of scopes, with what we add


Place: TypeAlias = tuple[Any, Any, int, "int | None"] | None
"""Where a scope could lie: the task, the scope around (on Trio, its status), a number that tells in which
order scopes of one place were noted, and how often the task was cancelled natively, which is nothing that
Trio knows of; ``None`` where none can be put in later."""


def note_place() -> Place:
    """Note where this task is, for a scope that may have to be opened here a step later.

    As long as it is not, whatever is started in it must be in a scope that was opened since, or be over soon.
    On Trio anything may be, for as long as it likes.
    """
    is_asyncio = _get_running_loop() is not None
    return note_place_in_asyncio(next(_serials)) if is_asyncio else note_place_in_trio()


def note_place_in_asyncio(serial: int) -> Place:
    """Do what `note_place` does, where none but asyncio can run; *serial* is the number of the place."""
    try:
        task: Any = current_task()
    except RuntimeError:
        return None
    if task is None or not (_works or _put_in_works(task)):
        return None
    around = None
    if _states:  # else not to ask takes a third of all this
        state = _states.get(ref(task))
        around = None if state is None else state.cancel_scope
    return task, around, serial, task.cancelling() if _COUNTS_CANCELS else 0


this_task = current_task
"""Return the task that runs this code, where places can be noted."""

Future = asyncio.Future
"""What a task of asyncio waits for, unless it but gives the others a turn."""

running_loop = _get_running_loop
"""Return the event loop of asyncio that runs in this thread; ``None`` if none does."""


def note_wait(task: Task[Any]) -> NotedScope:
    """Note where another task is that waits for something: a scope can be put in around that. Not on Trio.

    Native cancels that the task has not heard of yet have come since it waits, and none of them is lost. All
    that it has heard of are older: it would not wait any more.
    """
    state = _states.get(ref(task))
    cancels = 0 if _is_being_cancelled(task) else _native_cancels(task)
    return NotedScope(task, None if state is None else state.cancel_scope, next(_serials), cancels)


def _is_being_cancelled(task: Any) -> bool:
    """Whether a task was cancelled, and has not heard of that yet."""
    waiter = task._fut_waiter
    return bool(task._must_cancel or (waiter is not None and waiter.cancelled()))


def _native_cancels(task: Any) -> int:
    return task.cancelling() if _COUNTS_CANCELS else 0


def note_place_in_trio() -> Place:
    """Do what `note_place` does, where none but Trio can run."""
    trio_part = _trio_part()
    task = None if trio_part is None else trio_part.this_task()
    if task is not None and (_works_in_trio or _put_in_works_in_trio(task)):
        return task, task._cancel_status, next(_serials), None
    return None


def is_here(place: Place) -> bool:
    """Whether this is the thread of a place where the first step is being taken."""
    if place is not None and place[3] is None:
        return _trio_part().this_task() is place[0]
    return place is not None and place[0].get_loop() is _get_running_loop()


def loop_of(place: Place) -> object:
    """Return the backend's own object for the event loop of a place, which runs here; ``None`` if unknown."""
    if place is not None and place[3] is None:
        return _trio_part().current_trio_token()
    return None if place is None else place[0].get_loop()


@lru_cache
def _trio_part() -> Any:
    try:
        from . import _late_scope_trio
    except ImportError:  # it is not installed
        return None
    return _late_scope_trio


class Worker(Protocol):
    """Who has a scope, or a place for one."""

    _place: Place
    _work_scope: OpenScope | None


# Both are here, since no signal handler cancels anything in the middle of this module: it would make another.


def make_work_scope(worker: Worker) -> OpenScope:
    """Make the scope of a worker that has but noted its place, if it is not there yet."""
    scope = worker._work_scope or NotedScope(*cast("tuple[Any, Any, int, int | None]", worker._place))
    worker._work_scope, worker._place = scope, None
    return scope


def put_in_work_scope(worker: Worker) -> None:
    """Have the scope of a worker be there from now on, on asyncio. On Trio it need not.

    A worker that waits for a `Future`, for the first time, can do without it until it waits again.
    """
    scope = worker._work_scope
    if scope is None:
        place: Any = worker._place
        task, around, serial, cancels = place
        if cancels is not None:
            worker._work_scope, worker._place = _put_in(task, around, serial, cancels), None
    elif isinstance(scope, NotedScope):
        worker._work_scope = scope.put_in()


def close_work_scope(worker: Worker, error: BaseException | None) -> bool:
    """Leave the scope of a worker with *error*, as its `close` does. One that is not there will never be."""
    if worker._work_scope is None:
        worker._work_scope = NEVER_OPENED
    return worker._work_scope.close(error)


class _NeverOpened:
    """A scope that was left before anybody needed it: whoever comes now is too late."""

    __slots__ = ()

    cancel_called = False

    @property
    def deadline(self) -> float:
        return inf

    @deadline.setter
    def deadline(self, value: float) -> None:
        pass

    def cancel(self, reason: str | None = None) -> None:
        pass

    def close(self, error: BaseException | None) -> bool:
        return False


NEVER_OPENED = _NeverOpened()


class EagerScope:
    """A scope that is entered in the ordinary way."""

    __slots__ = ("_scope",)

    def __init__(self, entered: Any = None) -> None:
        self._scope = entered
        if entered is None:
            # Trio's own where it is Trio that runs here (not as a guest of asyncio): AnyIO's would call that.
            self._scope = (anyio.CancelScope if _get_running_loop() is not None else _trio_scope())()
            self._scope.__enter__()

    @property
    def cancel_called(self) -> bool:
        return bool(self._scope.cancel_called)

    @property
    def deadline(self) -> float:
        return float(self._scope.deadline)

    @deadline.setter
    def deadline(self, value: float) -> None:
        self._scope.deadline = value

    def cancel(self, reason: str | None = None) -> None:
        self._scope.cancel(reason)

    def close(self, error: BaseException | None) -> bool:
        is_caught = bool(self._scope.__exit__(*_exc_info(error)))
        return is_caught and error is not None  # Trio's says yes then, too


class NotedScope:
    """The place of a scope in a task, and the scope, once it is put in."""

    __slots__ = ("_cancels", "_outside", "_scope", "_serial", "_task")

    def __init__(self, task: Any, outside: Any, serial: int, cancels: int | None) -> None:
        self._task = task
        self._outside = outside
        self._serial = serial
        self._cancels = cancels
        self._scope: Any = None

    @property
    def cancel_called(self) -> bool:
        return self._scope is not None and bool(self._scope.cancel_called)

    @property
    def deadline(self) -> float:
        return inf if self._scope is None else float(self._scope.deadline)

    @deadline.setter
    def deadline(self, value: float) -> None:
        self.put_in().deadline = value

    def cancel(self, reason: str | None = None) -> None:
        self.put_in().cancel(reason)

    def close(self, error: BaseException | None) -> bool:
        if self._scope is None:
            self._scope = NEVER_OPENED
        return bool(self._scope.close(error))

    def put_in(self) -> OpenScope:
        """Have the scope be there from now on, and return it."""
        if self._scope is None:
            self._scope = _put_in(self._task, self._outside, self._serial, self._cancels)
        return self._scope  # type: ignore[no-any-return]


def _put_in(task: Any, around: Any, serial: int, cancels: int | None) -> Any:
    """Do what entering a scope would have done at a place and a time."""
    if cancels is None:
        return EagerScope(_trio_part().put_in(task, around, serial))
    scope = _new(_scope_type)
    scope.place(task, serial, cancels)
    if around is None:
        key = scope.key = ref(task, _forget)
        scope.cancel_scope = scope
        if _states.setdefault(key, scope) is scope:  # as a rule: AnyIO knows nothing of the task
            return scope
        scope.key = scope.cancel_scope = None
    _put_between(scope, task, around, serial)
    return scope


def _put_between(scope: Any, task: Any, around: Any, serial: int) -> None:
    """Have a scope be among those that a task has, or that it is in already."""
    state = _states[ref(task)]
    outside, inside = _neighbours(state.cancel_scope, around, serial)
    if outside is not None:
        scope._parent_scope = outside
        outside._child_scopes.add(scope)
        outside._child_scopes.discard(inside)
    if inside is not None:
        inside._parent_scope = scope
        scope.children, scope.tasks = {inside}, set()
        if type(inside) is _scope_type:
            scope.key, inside.key = inside.key, None
        return
    if outside is not None:
        outside._tasks.discard(task)
    state.cancel_scope = scope


def _neighbours(innermost: Any, around: Any, serial: int) -> tuple[Any, Any]:
    """Return what will be around the scope, and what will be in it; either may be ``None``.

    Several scopes may have the same place. They lie in the order in which the place was noted,
    whichever of them was put in first.
    """
    outside, inside = innermost, None
    while outside is not around and not (type(outside) is _scope_type and outside.serial < serial):
        outside, inside = outside._parent_scope, outside
    return outside, inside


@lru_cache
def _trio_scope() -> Any:
    import trio

    return trio.CancelScope


class _SetsOnDemand:
    """What a scope that is put in has in place of two sets of AnyIO's, of which few requests need either.

    A set takes more room than all the rest of a scope.
    """

    __slots__ = ()

    @property
    def _child_scopes(self: Any) -> set[Any]:
        children: set[Any] | None = self.children
        if children is None:
            children = set()
            self.children = children
        return children

    @property
    def _tasks(self: Any) -> set[Any]:
        tasks: set[Any] | None = self.tasks
        if tasks is None:
            tasks = self.tasks = {self._host_task} - {None}  # which it no longer has once it was left
        return tasks


def _make_scope_type(scope_type: Any) -> Any:
    """Derive the class of the scopes that are put in."""

    # One of a task of which AnyIO knows nothing else is the task's state, too: one object less for each.
    class PutInScope(_SetsOnDemand, scope_type):  # type: ignore[misc] # (known at run time only)
        __slots__ = (
            "cancel_scope",  # this and the `parent_id` are all of a state
            "children",  # what AnyIO calls _child_scopes ...
            "key",  # of the task's state, if AnyIO knows nothing of the task without it
            "parent_id",
            "serial",  # in which order scopes were opened
            "tasks",  # ... and _tasks; ``None`` until somebody asks for them
        )

        def place(self: Any, task: Any, serial: int, cancels: int) -> None:
            """Do what AnyIO does where a scope is made and entered that none is around."""
            self._host_task = task
            self._cancelling_at_enter = cancels
            self.serial = serial
            self._active = True
            self._deadline = inf
            self._shield = self._cancel_called = self._cancelled_caught = False
            self._cancel_reason = self._timeout_handle = self._cancel_handle = self._parent_scope = None
            self.children = self.tasks = self.key = self.parent_id = None
            self._pending_uncancellations = None if sys.version_info < (3, 11) else 0  # spelling: theirs

        def close(self: Any, error: BaseException | None) -> bool:
            key = self.key
            if error is None and key is not None and not self._cancel_called and self._timeout_handle is None:
                state = _states.pop(key)
                if state.cancel_scope is self:
                    # Nobody has touched it, and nothing was there before: leaving it is no more than this.
                    self._active = False
                    self._host_task = self.tasks = state.cancel_scope = None
                    return False
                _states[key] = state
            try:
                return bool(self.__exit__(*_exc_info(error)))
            finally:
                state = None if key is None else _states.get(key)
                if state is not None and state.cancel_scope is None:
                    del _states[key]  # a scope of the past: AnyIO would keep it for as long as the task lives

    return PutInScope


def _exc_info(
    error: BaseException | None,
) -> tuple[type[BaseException] | None, BaseException | None, TracebackType | None]:
    return (None, None, None) if error is None else (type(error), error, error.__traceback__)


# --- Whether it works


def _put_in_works(task: Task[Any]) -> bool:
    """Find out, and remember, whether AnyIO's scopes are what this module takes them for."""
    global _works  # noqa: PLW0603 (found out once, and asked at every step of every request)
    with _lock:
        if _works is None:
            _works = _finds_all_known(_look_at_asyncio, task) and _survives_the_trial(task)
    return _works


def _put_in_works_in_trio(task: Any) -> bool:
    """Find out, and remember, whether Trio's scopes are what is known of them here."""
    global _works_in_trio  # noqa: PLW0603 (as above)
    with _lock:
        if _works_in_trio is None:
            is_known = _finds_all_known(_trio_part().looks_as_known, task)
            _works_in_trio = is_known and _survives_the_trial_in_trio(task)
    return _works_in_trio


def _finds_all_known(look: Callable[[Any], bool], task: Any) -> bool:
    try:
        return look(task)
    except Exception:  # whatever has changed: the ordinary way is always right
        return False


def _look_at_asyncio(task: Task[Any]) -> bool:
    global _states, _forget, _scope_type  # noqa: PLW0603 (as above)
    from anyio._backends import _asyncio

    backend: Any = _asyncio
    _states, _forget = backend._task_states.data, backend._task_states._remove
    _scope_type = _make_scope_type(backend.CancelScope)
    ours, theirs = _new(_scope_type), backend.CancelScope()
    ours.place(task, 0, _native_cancels(task))
    theirs._active, theirs._host_task, theirs._cancelling_at_enter = True, task, ours._cancelling_at_enter
    theirs._tasks.add(task)
    is_known_state = set(backend.TaskState.__slots__) == {"__weakref__", "cancel_scope", "parent_id"}
    parts = backend.CancelScope.__slots__
    return is_known_state and all(getattr(ours, part) == getattr(theirs, part) for part in parts)


def _survives_the_trial(task: Task[Any]) -> bool:
    state = _states.get(ref(task))
    outside = None if state is None else state.cancel_scope

    def note() -> tuple[Any, ...]:  # what `note_place_in_asyncio` does, which would ask for the trial
        around = _states.get(ref(task))
        return task, None if around is None else around.cancel_scope, next(_serials), _native_cancels(task)

    try:
        return _stands_the_trial(note)
    except Exception:  # and then the task must be put back where it was
        if state is None:
            _states.pop(ref(task), None)
        else:
            state.cancel_scope = outside
        if outside is not None:
            outside._tasks.add(task)
        return False


def _survives_the_trial_in_trio(task: Any) -> bool:
    outside = task._cancel_status
    try:
        return _stands_the_trial(lambda: (task, task._cancel_status, next(_serials), None))
    except Exception:
        task._activate_cancel_status(outside)
        return False


def _stands_the_trial(note: Callable[[], Any]) -> bool:
    """Put scopes around others in this very task, and see whether all goes as if they had been entered.

    Nothing is waited for in between, so that nobody is interrupted.
    """
    answers: list[bool] = []
    deadline = anyio.current_time() + 3600
    with anyio.CancelScope():  # noqa: ASYNC100 (nothing is waited for)
        around = note()[1]
        first, second = NotedScope(*note()), NotedScope(*note())
        with anyio.CancelScope() as inner:  # noqa: ASYNC100
            second.cancel("a trial")
            answers.append(anyio.current_effective_deadline() == -inf)
            inner.shield = True
            answers.append(anyio.current_effective_deadline() == inf)
            first.deadline = deadline
            inner.shield = False
            answers.append(anyio.current_effective_deadline() == -inf)
        answers.append(not second.close(None))
        answers.append(anyio.current_effective_deadline() <= deadline)
        answers.append(not first.close(None))
        third = NotedScope(*note()).put_in()
        third.deadline = deadline
        answers.append(anyio.current_effective_deadline() <= deadline)
        answers.append(not third.close(None))
        answers.append(note()[1] is around)
    return all(answers)
