"""Scopes that are put in late do what scopes do that were entered at their place and time."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any

import anyio
import pytest
from anyio import CancelScope, create_task_group, to_thread, wait_all_tasks_blocked
from anyio.lowlevel import current_token
from hypothesis import given, settings
from hypothesis import strategies as st

from hother.cancelable import Cancelable
from hother.cancelable._core._wakeup import call_at
from hother.cancelable.asgi import _late_scope
from hother.cancelable.asgi._late_scope import EagerScope, NotedScope, OpenScope, note_place
from tests.sweep import cancelling_at

HOUR = 3600.0


def is_trio() -> bool:
    return not hasattr(current_token().native_token, "call_at")


def later(seconds: float, function: Callable[..., object], *args: Any) -> None:
    """Have the loop call *function*, as neither of its tasks."""
    call_at(current_token(), anyio.current_time() + seconds, function, *args)


def noted() -> OpenScope:
    place = note_place()
    return EagerScope() if place is None else NotedScope(*place)


def enter_scope() -> OpenScope:
    scope = noted()
    return scope.put_in() if isinstance(scope, NotedScope) else scope


opens = pytest.mark.parametrize(
    "opened", [noted, enter_scope, EagerScope], ids=["noted", "entered", "ordinary"]
)
Open = Callable[[], OpenScope]


async def run_in(scope: OpenScope, work: Callable[[], Awaitable[object]]) -> str:
    """Do *work* in a scope, and tell how that ended."""
    try:
        await work()
    except BaseException as error:
        if not scope.close(error):
            raise
        return "cancelled"
    assert not scope.close(None)
    return "done"


def innermost() -> Any:
    if is_trio():
        import trio

        return trio.lowlevel.current_task()._cancel_status
    from anyio._backends import _asyncio

    state = _asyncio._task_states.get(asyncio.current_task())  # type: ignore[arg-type]
    return None if state is None else state.cancel_scope


# --- What it is put around


async def wait() -> None:
    await anyio.sleep(HOUR)


async def wait_in_scopes() -> None:
    with CancelScope(), anyio.move_on_after(2 * HOUR):
        await anyio.sleep(HOUR)


async def wait_in_task_group() -> None:
    async with create_task_group() as tasks:
        tasks.start_soon(wait)
        tasks.start_soon(wait_in_scopes)
        await wait()


async def wait_for_tasks() -> None:
    async with create_task_group() as tasks:
        tasks.start_soon(wait_in_task_group)


async def wait_in_operations() -> None:
    async with Cancelable(timeout=2 * HOUR), Cancelable(name="inner"):
        await wait()


WORKS = [wait, wait_in_scopes, wait_in_task_group, wait_for_tasks, wait_in_operations]
works = pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__)


@opens
@works
async def test_a_cancel_from_outside_stops_all_that_runs_in_it(opened: Open, work: Any) -> None:
    """
    At once, and the task goes on behind the scope as if nothing had been.
    """
    before = innermost()
    scope = opened()
    later(1, scope.cancel, "enough")

    assert await run_in(scope, work) == "cancelled"

    assert anyio.current_time() == 1
    assert scope.cancel_called
    assert innermost() is before
    if sys.version_info >= (3, 11) and not is_trio():
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
    await anyio.sleep(1)


@opens
@works
async def test_a_deadline_that_is_set_from_outside_stops_it(opened: Open, work: Any) -> None:
    """
    And what runs in it can see when that will be.
    """
    scope = opened()
    later(1, setattr, scope, "deadline", 5.0)

    assert await run_in(scope, work) == "cancelled"

    assert anyio.current_time() == scope.deadline == 5


@opens
@works
async def test_what_is_around_it_goes_through_it(opened: Open, work: Any) -> None:
    """
    Whether it was cancelled itself or not.
    """
    for cancelled_too in (False, True):
        started_at = anyio.current_time()
        with anyio.move_on_after(2) as around:
            scope = opened()
            call = scope.cancel if cancelled_too else (lambda: setattr(scope, "deadline", 1e9))  # noqa: B023
            later(2 if cancelled_too else 1, call)
            await run_in(scope, work)
        assert around.cancelled_caught or cancelled_too
        assert anyio.current_time() == started_at + 2


@opens
async def test_it_can_be_cancelled_before_its_deadline(opened: Open) -> None:
    """
    One scope is put in, whatever is asked of it.
    """
    scope = opened()
    scope.deadline = 20.0
    scope.deadline = min(scope.deadline, 10.0)
    later(1, scope.cancel)

    assert await run_in(scope, wait_in_task_group) == "cancelled"
    assert anyio.current_time() == 1


@opens
async def test_a_shield_within_it_holds(opened: Open) -> None:
    """
    What is shielded ends, what comes after it does not begin.
    """
    steps: list[str] = []

    async def work() -> None:
        with CancelScope(shield=True):
            await anyio.sleep(5)
            steps.append("shielded")
        await anyio.sleep(1)
        steps.append("more")

    scope = opened()
    later(1, scope.cancel)

    assert await run_in(scope, work) == "cancelled"
    assert steps == ["shielded"]
    assert anyio.current_time() == 5


@opens
async def test_it_cancels_again_and_again(opened: Open) -> None:
    """
    Cancelation is a state, not an event.
    """
    interruptions: list[float] = []

    async def work() -> None:
        for _ in range(3):
            try:
                await anyio.sleep(HOUR)
            except BaseException:
                interruptions.append(anyio.current_time())
        await anyio.sleep(HOUR)

    scope = opened()
    later(1, scope.cancel)

    assert await run_in(scope, work) == "cancelled"
    assert interruptions == [1, 1, 1]


@opens
async def test_errors_beside_its_cancelation_leave_it(opened: Open) -> None:
    """
    Without the cancelation that it has caught.
    """

    async def fail() -> None:
        try:
            await anyio.sleep(HOUR)
        finally:
            raise ValueError("broken")

    async def work() -> None:
        async with create_task_group() as tasks:
            tasks.start_soon(fail)
            tasks.start_soon(anyio.sleep, HOUR)

    scope = opened()
    later(1, scope.cancel)

    with pytest.raises(BaseException) as raised:  # noqa: PT011
        await run_in(scope, work)

    assert [str(error) for error in raised.value.exceptions] == ["broken"]  # type: ignore[attr-defined]


@opens
@pytest.mark.only_on("asyncio")
@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio does not count cancels before")
@pytest.mark.parametrize("first", ["native", "ours", "native, long before"])
async def test_a_native_cancel_beside_its_own_is_not_swallowed(opened: Open, first: str) -> None:
    """
    Whichever came first, and even if the task made the native one wait.
    """

    async def work() -> None:
        try:
            await anyio.sleep(HOUR)
        finally:
            with CancelScope(shield=True):
                await anyio.sleep(2)
            await anyio.sleep(HOUR)

    scopes: list[OpenScope] = []

    async def serve() -> str:
        scopes.append(opened())
        return await run_in(scopes[0], work)

    task = asyncio.create_task(serve())
    await wait_all_tasks_blocked()
    if first == "ours":
        scopes[0].cancel()
        task.cancel()
    else:
        task.cancel()
        if first == "native, long before":
            await anyio.sleep(1)
        scopes[0].cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("caught_by", [0, 1])
async def test_scopes_of_one_place_lie_in_the_order_of_the_notes(
    order: tuple[int, int], caught_by: int
) -> None:
    """
    Whichever is put in first: so two middlewares, each around its own application, can be left.
    """
    outer, inner = noted(), noted()
    scopes = (outer, inner)
    caught: list[str] = []

    async def work() -> None:
        for number in order:
            later(1, setattr, scopes[number], "deadline", 10 if number == caught_by else 20)
        async with create_task_group() as tasks:
            tasks.start_soon(wait)

    async def both() -> None:
        caught.append(await run_in(inner, work))

    caught.append(await run_in(outer, both))

    assert caught == (["cancelled"] if caught_by == 0 else ["cancelled", "done"])
    assert anyio.current_time() == 10


@pytest.mark.real_time
@opens
async def test_a_thread_is_waited_for(opened: Open) -> None:
    """
    AnyIO shields those who wait for threads.
    """
    done: list[str] = []

    def work() -> None:
        import time

        time.sleep(0.05)
        done.append("thread")

    async def in_thread() -> None:
        await to_thread.run_sync(work)
        await anyio.sleep(HOUR)

    scope = opened()
    later(0.01, scope.cancel)

    assert await run_in(scope, in_thread) == "cancelled"
    assert done == ["thread"]


@pytest.mark.only_on("asyncio")
async def test_nobody_notices_a_scope_that_nobody_cancels() -> None:
    """
    What AnyIO knows of the task stays as it was, and nothing is kept.
    """
    from anyio._backends import _asyncio

    async def unmanaged() -> None:
        scope = enter_scope()
        await anyio.sleep(1)
        scope.close(None)
        assert innermost() is None

    before = len(_asyncio._task_states)
    task = asyncio.create_task(unmanaged())
    await task
    del task
    assert len(_asyncio._task_states) == before

    async def cancelled() -> None:
        scope = enter_scope()
        later(1, scope.cancel)
        assert await run_in(scope, wait) == "cancelled"
        assert asyncio.current_task() not in _asyncio._task_states

    await asyncio.create_task(cancelled())

    with CancelScope():
        around = innermost()
        scope = enter_scope()
        await anyio.sleep(1)
        scope.close(None)
        assert innermost() is around
        assert asyncio.current_task() in around._tasks
        assert not around._child_scopes


@pytest.mark.only_on("asyncio")
@pytest.mark.parametrize("opened", [enter_scope, EagerScope], ids=["entered", "ordinary"])
async def test_who_leaves_it_before_those_in_it_is_told(opened: Open) -> None:
    """
    As AnyIO tells them, in a task that it knows nothing else of; and those in it can still be left.
    """

    async def unmanaged() -> None:
        scope, inner = opened(), CancelScope()
        inner.__enter__()
        try:
            with pytest.raises(RuntimeError, match="cancel scope"):
                scope.close(None)
            assert innermost() is inner
        finally:
            inner.__exit__(None, None, None)
        scope.close(None)
        assert innermost() is None

    await asyncio.create_task(unmanaged())


# --- Against those that are entered

Program = list[Any]

programs: st.SearchStrategy[Program] = st.recursive(
    st.sampled_from([["checkpoint"], ["sleep"], ["send"]]),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["scope", "shield", "late", "group", "operation", "catch"]), inner).map(
            list
        ),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: ["all", *parts]),
    ),
    max_leaves=8,
)


async def play(  # noqa: C901 (one case for each word of the programs)
    program: Program, log: list[str], opened: Open
) -> None:
    """Run a program, and write down what happens when."""
    kind, *parts = program
    try:
        match kind:
            case "checkpoint":
                await anyio.lowlevel.checkpoint()
            case "sleep":
                await anyio.sleep(1)
            case "send":
                await run_in(opened(), lambda: anyio.sleep(1))
            case "scope":
                with anyio.move_on_after(5):
                    await play(parts[0], log, opened)
            case "shield":
                with CancelScope(shield=True):
                    await play(parts[0], log, opened)
            case "late":
                await run_in(opened(), lambda: play(parts[0], log, opened))
            case "group":
                async with create_task_group() as tasks:
                    tasks.start_soon(play, parts[0], log, opened)
                    await anyio.sleep(1)
            case "operation":
                async with Cancelable():
                    await play(parts[0], log, opened)
            case "catch":
                try:
                    await play(parts[0], log, opened)
                finally:
                    with CancelScope(shield=True):
                        await anyio.sleep(1)
            case _:
                for part in parts:
                    await play(part, log, opened)
    except BaseException as error:
        log.append(f"{kind} {type(error).__name__} at {anyio.current_time()}")
        raise
    log.append(f"{kind} done at {anyio.current_time()}")


async def played(program: Program, number: int, how: str, opened: Open, log: list[str]) -> None:
    """Run a program in a scope that is interrupted at one of the checkpoints."""
    scope: OpenScope = opened()
    task = None if is_trio() else asyncio.current_task()

    def interrupt() -> None:
        if how == "native":
            assert task is not None
            task.cancel()
        elif how == "cancel":
            scope.cancel()
        else:
            scope.deadline = anyio.current_time() + 0.5

    async def work() -> None:
        await cancelling_at(number, interrupt, play(program, log, opened))

    log.append(await run_in(scope, work))
    if sys.version_info >= (3, 11) and task is not None:
        assert task.cancelling() == 0
    await anyio.sleep(1)
    log.append("behind")


numbers = st.integers(1, 8)


@pytest.mark.only_on("asyncio")
@given(programs, numbers, st.sampled_from(["cancel", "deadline", "native"]))
@settings(max_examples=150)
async def test_programs_end_as_in_scopes_of_anyio(program: Program, number: int, how: str) -> None:
    """
    Cancelled at any of their checkpoints, in any way: the same things happen at the same times.
    """
    logs: list[list[str]] = []
    for opened in (EagerScope, noted, enter_scope):
        log: list[str] = []
        start = anyio.current_time()
        task = asyncio.create_task(played(program, number, how, opened, log))
        await asyncio.wait([task])
        log.append(f"{task.cancelled()} {anyio.current_time() - start}")
        logs.append([line if " at " not in line else _relative(line, start) for line in log])

    assert logs[1] == logs[0]
    assert logs[2] == logs[0]


@pytest.mark.only_on("trio")
@given(programs, numbers, st.sampled_from(["cancel", "deadline"]))
@settings(max_examples=150)
async def test_programs_end_as_in_scopes_of_trio(program: Program, number: int, how: str) -> None:
    """
    Likewise. Tasks that could run next do so in any order there: in the same one each time, for once.
    """
    from trio._core import _run

    logs: list[list[str]] = []
    for opened in (EagerScope, noted, enter_scope):
        _run._r.seed(number)
        log: list[str] = []
        start = anyio.current_time()
        try:
            await played(program, number, how, opened, log)
        except BaseException as error:
            log.append(f"left with {type(error).__name__}")
        log.append(f"over {anyio.current_time() - start}")
        logs.append([line if " at " not in line else _relative(line, start) for line in log])

    assert logs[1] == logs[0]
    assert logs[2] == logs[0]


def _relative(line: str, start: float) -> str:
    what, _, when = line.rpartition(" at ")
    return f"{what} {float(when) - start:g}"


# --- If AnyIO or Trio has changed


@pytest.mark.only_on("asyncio")
async def test_if_scopes_have_something_new_they_are_entered_as_before(monkeypatch: Any) -> None:
    """
    What we do not know of we cannot copy.
    """
    from anyio._backends import _asyncio

    class NewScope(_asyncio.CancelScope):
        __slots__ = ("_novelty",)

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self._novelty = "new"

    setattr(NewScope, "__slots__", (*_asyncio.CancelScope.__slots__, "_novelty"))  # noqa: B010
    monkeypatch.setattr(_asyncio, "CancelScope", NewScope)
    for name in ("_works", "_states", "_forget", "_scope_type"):
        monkeypatch.setattr(_late_scope, name, getattr(_late_scope, name))
    monkeypatch.setattr(_late_scope, "_works", None)

    scope = enter_scope()

    assert type(scope) is EagerScope
    assert note_place() is None
    scope.close(None)


@pytest.mark.only_on("asyncio")
async def test_what_was_found_out_is_not_asked_again() -> None:
    """
    By other threads, which were about to.
    """
    scope_type = _late_scope._scope_type
    task = asyncio.current_task()
    assert task is not None

    assert _late_scope._put_in_works(task)
    assert _late_scope._scope_type is scope_type


@pytest.mark.parametrize("in_scope", [False, True])
@pytest.mark.parametrize("answer", ["deadline", "current"])
async def test_if_scopes_hang_together_otherwise_they_are_entered_as_before(
    monkeypatch: Any, answer: str, in_scope: bool
) -> None:
    """
    The trial finds out, and leaves nothing behind.
    """
    if in_scope:
        with CancelScope():
            await test_if_scopes_hang_together_otherwise_they_are_entered_as_before(
                monkeypatch, answer, False
            )
        return
    before = innermost()
    if answer == "deadline":
        monkeypatch.setattr(anyio, "current_effective_deadline", lambda: 17.0)
    else:
        module = _late_scope._trio_part() if is_trio() else _late_scope
        monkeypatch.setattr(module, "_neighbours", lambda *place: (None, None))
    monkeypatch.setattr(_late_scope, "_works", None)
    monkeypatch.setattr(_late_scope, "_works_in_trio", None)

    scope = enter_scope()
    assert type(scope) is EagerScope
    scope.close(None)

    assert innermost() is before


@pytest.mark.only_on("trio")
async def test_if_scopes_of_trio_have_something_new_they_are_entered_as_before(monkeypatch: Any) -> None:
    """
    Or something less.
    """
    trio_part = _late_scope._trio_part()
    monkeypatch.setattr(trio_part, "_SCOPE", {*trio_part._SCOPE, "_novelty"})
    monkeypatch.setattr(_late_scope, "_works_in_trio", None)

    scope = enter_scope()

    assert type(scope) is EagerScope
    assert note_place() is None
    scope.close(None)


def test_without_an_event_loop_there_is_no_place() -> None:
    """
    Nor without Trio.
    """
    assert note_place() is None


def test_without_trio_there_is_no_place(monkeypatch: Any) -> None:
    """
    It need not be installed.
    """
    monkeypatch.delitem(sys.modules, "hother.cancelable.asgi._late_scope_trio", raising=False)
    monkeypatch.delattr("hother.cancelable.asgi._late_scope_trio", raising=False)
    monkeypatch.setitem(sys.modules, "trio", None)
    _late_scope._trio_part.cache_clear()
    try:
        assert note_place() is None
    finally:
        _late_scope._trio_part.cache_clear()


# --- When it is too late, or the task has moved


@opens
async def test_who_cancels_it_once_it_was_left_cancels_nothing(opened: Open) -> None:
    """
    Least of all what the task does next.
    """
    before = innermost()
    scope = opened()
    scope.close(None)

    scope.cancel("too late")
    assert scope.deadline == inf
    scope.deadline = anyio.current_time()
    await anyio.sleep(1)

    assert innermost() is before


@pytest.mark.only_on("trio")
@opens
async def test_it_goes_with_its_task_into_another_nursery(opened: Open) -> None:
    """
    Who starts a task in a nursery moves it there once it has begun.
    """
    import trio

    ended: list[str] = []
    scopes: list[OpenScope] = []

    async def serve(task_status: Any) -> None:
        scopes.append(opened())
        ended.append(await run_in(scopes[0], lambda: begin(task_status)))
        await anyio.sleep(1)
        ended.append("went on")

    async def begin(task_status: Any) -> None:
        task_status.started()
        await anyio.sleep(HOUR)

    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        scopes[0].cancel()

    assert ended == ["cancelled", "went on"]
    assert anyio.current_time() == 1
