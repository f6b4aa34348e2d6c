"""The registry: which operations run, how they have ended, and cancelling them from outside."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import tracemalloc
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import anyio
import pytest
from anyio import CancelScope, create_task_group, fail_after, sleep, sleep_forever, wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from hother.cancelable import (
    Cancelable,
    Cancelation,
    CancelationReason,
    CancelationToken,
    ManualCancelation,
    OperationContext,
    OperationRegistry,
    OperationStatus,
    Percentiles,
    Progress,
    Transition,
    add_observer,
    cancelable_stream,
)
from hother.cancelable.registry import _history, _registry

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

PENDING, RUNNING, SHIELDED = OperationStatus.PENDING, OperationStatus.RUNNING, OperationStatus.SHIELDED
COMPLETED, CANCELLED, FAILED = OperationStatus.COMPLETED, OperationStatus.CANCELLED, OperationStatus.FAILED
HOUR = 3600.0


@pytest.fixture
def registry() -> Iterator[OperationRegistry]:
    """
    A registry that watches everything.
    """
    with OperationRegistry() as registry:
        yield registry
        assert len(registry) == 0, "the test left operations behind"


def ids(contexts: list[OperationContext]) -> list[str]:
    return [context.id for context in contexts]


def made_by_hand(operation_id: str, token: CancelationToken | None = None, **values: Any) -> Transition:
    """Make the event of an operation that starts to run, with nothing behind it."""
    context = OperationContext(operation_id, None, RUNNING, None, None, None, 0.0, 0.0, {})
    return Transition(replace(context, **values), PENDING, token or CancelationToken())


def ended(event: Transition, status: OperationStatus = COMPLETED, **values: Any) -> Transition:
    """Make the event of the same operation that ends."""
    return replace(event, context=replace(event.context, status=status, **values), previous=RUNNING)


# --- From entering to leaving


async def test_an_operation_is_there_from_entering_to_leaving() -> None:
    """
    Under its id, in order; and then it is in the history.
    """
    registry = OperationRegistry()
    outer = Cancelable(observers=[registry], operation_id="outer")
    inner = Cancelable(observers=[registry], name="inner")

    assert registry.list() == []
    async with outer, inner:
        assert ids(registry.list()) == ["outer", inner.id]
        assert (len(registry), "outer" in registry, inner.id in registry) == (2, True, True)
        assert inner.context in registry
        found = registry.get(inner.id)
        assert found is not None
        assert (found.name, found.status, found.parent_id) == ("inner", RUNNING, "outer")
        assert registry.history() == []
    assert (len(registry), "outer" in registry, registry.get("outer"), registry.list()) == (
        0,
        False,
        None,
        [],
    )
    assert outer.context not in registry
    assert 7 not in registry
    assert [(context.id, context.status) for context in registry.history()] == [
        (inner.id, COMPLETED),
        ("outer", COMPLETED),
    ]


async def test_what_it_shows_is_as_of_now(registry: OperationRegistry) -> None:
    """
    Not as of the last step: metadata, status, duration and cancelation are the operation's own.
    """
    async with Cancelable(raise_on_cancel=False) as operation:
        operation.metadata["user"] = "ada"
        await sleep(HOUR)
        async with operation.shield():
            operation.cancel(message="enough")

            context = registry.get(operation.id)

            assert context is not None
            assert context.status is SHIELDED
            assert context.duration == HOUR
            assert context.metadata == {"user": "ada"}
            assert str(context.cancelation) == "enough"


@pytest.mark.parametrize(
    "stop",
    [
        pytest.param(lambda scope, operation: scope.cancel(), id="outer scope"),
        pytest.param(lambda scope, operation: operation.cancel(), id="own"),
        pytest.param(lambda scope, operation: 1 / 0, id="error"),
    ],
)
async def test_however_an_operation_ends_nothing_stays(
    registry: OperationRegistry, stop: Callable[..., object]
) -> None:
    """
    A cancel from an outer scope takes it out, too, and an error.
    """
    with CancelScope() as scope, suppress(ManualCancelation, ZeroDivisionError):
        async with Cancelable(), Cancelable() as operation:
            stop(scope, operation)
            await sleep_forever()

    assert len(registry) == 0
    assert len(registry.history()) == 2
    assert COMPLETED not in {context.status for context in registry.history()}


async def test_it_keeps_no_operation_alive(registry: OperationRegistry) -> None:
    """
    The history holds values only.
    """
    async with Cancelable() as operation:
        pass
    reference = weakref.ref(operation)
    del operation
    gc.collect()

    assert reference() is None
    assert len(registry.history()) == 1


def test_an_operation_that_is_thrown_away_does_not_stay() -> None:
    """
    It never tells how it ended. The registry holds nothing that holds it, not even its token.
    """
    registry = OperationRegistry()
    operation = Cancelable(operation_id="7")
    # A parent's token holds what its children put there, and with that the parent.
    operation.token.add_callback(partial(print, operation))
    registry.on_transition(replace(made_by_hand("7", operation.token), _operation=weakref.ref(operation)))
    assert len(registry) == 1

    del operation
    gc.collect()

    assert len(registry) == 0


def test_an_operation_that_went_down_with_its_loop_does_not_stay(registry: OperationRegistry) -> None:
    """
    A loop that is closed ends none of its tasks, and AnyIO remembers the task for ever.
    """

    async def work() -> None:
        async with Cancelable(operation_id="7"), Cancelable():
            await asyncio.sleep(HOUR)

    loop = asyncio.SelectorEventLoop()
    task = loop.create_task(work())
    loop.call_soon(loop.call_soon, loop.stop)
    loop.run_forever()
    assert len(registry.list()) == len(registry) == 2
    loop.close()

    assert registry.get("7") is None
    assert not registry.cancel("7")
    assert registry.list() == []
    assert len(registry) == 0
    with suppress(BaseException):
        task.get_coro().throw(GeneratorExit)


async def test_progress_does_not_bring_in_what_does_not_run(registry: OperationRegistry) -> None:
    """
    A stream reports for an operation that is not entered, and is not one that runs.
    """

    async def numbers() -> AsyncIterator[int]:
        yield 1

    operation = Cancelable()
    events = registry.events()

    async for _ in cancelable_stream(numbers(), timeout=HOUR, report_interval=1):
        pass
    async for _ in operation.stream(numbers(), report_interval=1):
        assert len(registry) == 0
    async with events:
        event = await events.__anext__()

    assert isinstance(event, Progress)
    assert event.context.status is PENDING


# --- Watching


async def test_it_watches_everything_while_it_is_installed() -> None:
    """
    Whatever is entered meanwhile. What still runs when it is taken back, it forgets.
    """
    registry = OperationRegistry()

    with registry as same:
        assert same is registry
        async with Cancelable(operation_id="1"):
            assert ids(registry.list()) == ["1"]
        entered = await Cancelable(operation_id="2").__aenter__()
        assert len(registry) == 1
    assert len(registry) == 0
    registry.uninstall()  # again: no effect
    await entered.__aexit__(None, None, None)
    async with Cancelable():
        assert len(registry) == 0

    assert ids(registry.history()) == ["1"]


async def test_one_that_runs_already_comes_in_with_its_next_step() -> None:
    """
    A registry that is installed late learns of operations as they go on, and ignores how others end.
    """
    registry = OperationRegistry()

    async with Cancelable(operation_id="1"), Cancelable(operation_id="2") as second:
        registry.install()
        await second.report_progress("half")
        assert ids(registry.list()) == ["2"]
    registry.uninstall()

    assert ids(registry.history()) == ["2"]


async def test_hearing_twice_counts_once() -> None:
    """
    It may be installed twice, and be an operation's own observer besides.
    """
    registry = OperationRegistry()

    with registry.install(), registry:
        events = registry.events()
        async with Cancelable(observers=[registry]) as operation, operation.shield():
            await operation.report_progress("half")
            assert len(registry) == 1
    heard = [await events.__anext__() for _ in range(5)]

    assert [event.context.status for event in heard] == [RUNNING, SHIELDED, SHIELDED, RUNNING, COMPLETED]
    assert events.dropped == 0
    assert "0 waiting" in repr(events)
    assert registry.statistics().ended == len(registry.history()) == 1


async def test_two_threads_that_install_it_install_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The slower one takes its observer back.
    """
    registry = OperationRegistry()

    def slowly(observer: OperationRegistry) -> Callable[[], None]:
        monkeypatch.undo()
        observer.install()  # by the other thread
        return add_observer(observer)

    monkeypatch.setattr(_registry, "add_observer", slowly)
    registry.install()
    registry.uninstall()

    async with Cancelable():
        assert len(registry) == 0


async def test_the_process_has_a_registry() -> None:
    """
    It watches from when it is first asked for, and is always the same.
    """
    registry = OperationRegistry.default()
    try:
        async with Cancelable() as operation:
            assert OperationRegistry.default() is registry
            assert operation.id in registry
    finally:
        registry.uninstall()


def test_a_registry_without_operations_is_a_registry() -> None:
    """
    It is true, so that `registry or other` does what it says, and it shows how much runs.
    """
    registry = OperationRegistry()

    assert registry
    assert "0 running" in repr(registry)


@pytest.mark.parametrize("options", [{"history": -1}, {"samples": 0}, {"history_age": -1.0}])
def test_impossible_sizes_are_refused(options: dict[str, Any]) -> None:
    """
    Early, by name.
    """
    with pytest.raises(ValueError, match=next(iter(options))):
        OperationRegistry(**options)


@pytest.mark.parametrize("options", [{"history": 1.5}, {"samples": True}, {"history_age": "1"}])
def test_sizes_of_the_wrong_kind_are_refused(options: dict[str, Any]) -> None:
    """
    Early, by name.
    """
    with pytest.raises(TypeError, match=next(iter(options))):
        OperationRegistry(**options)


# --- Choosing


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, "1234"),
        ({"name": None, "status": None, "metadata": None, "max_age": None}, "1234"),
        ({"id": "2"}, "2"),
        ({"id": "9"}, ""),
        ({"name": "report"}, "1"),
        ({"name": "rep*"}, ""),
        ({"name_glob": "rep*"}, "12"),
        ({"name_glob": "REP*"}, ""),
        ({"name_glob": "report [0-9]"}, "2"),
        ({"status": RUNNING}, "124"),
        ({"status": "shielded"}, "3"),
        ({"status": [RUNNING, SHIELDED]}, "1234"),
        ({"status": []}, ""),
        ({"status": COMPLETED}, ""),
        ({"parent_id": "1"}, "2"),
        ({"metadata": {"user": 1}}, "14"),
        ({"metadata": {"user": 1, "page": None}}, "4"),
        ({"metadata": {"page": None}}, "4"),
        ({"min_age": HOUR}, "123"),
        ({"min_age": HOUR + 1}, ""),
        ({"max_age": HOUR - 1}, "4"),
        ({"max_age": timedelta(hours=1)}, "1234"),
        ({"name_glob": "*", "min_age": 0, "metadata": {"user": 1}}, "1"),
    ],
)
async def test_filters(registry: OperationRegistry, wanted: dict[str, Any], expected: str) -> None:
    """
    All that is given has to hold, of those that run, and of those that have ended.
    """
    async with (
        Cancelable(operation_id="1", name="report", metadata={"user": 1}),
        Cancelable(operation_id="2", name="report 2", metadata={"user": 2}),
        Cancelable(operation_id="3") as shielded,
    ):
        async with shielded.shield():
            await sleep(HOUR)
            async with Cancelable(operation_id="4", metadata={"user": 1, "page": None}):
                assert "".join(ids(registry.list(**wanted))) == expected

    if "status" not in wanted or wanted["status"] is None:
        wanted.setdefault("max_age", 2 * HOUR)
        assert sorted(ids(registry.history(**wanted))) == list(expected)
    assert len(registry.history(status=COMPLETED)) == 4


@pytest.mark.parametrize("call", ["list", "history", "cancel_all", "events"])
@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        ({"title": "report"}, TypeError),
        ({"min_age": "old"}, TypeError),
        ({"max_age": -1}, ValueError),
        ({"status": "sleeping"}, ValueError),
    ],
)
async def test_filters_that_do_not_exist_are_refused(
    registry: OperationRegistry, call: str, wanted: dict[str, Any], error: type[Exception]
) -> None:
    """
    Above all, a filter that is misspelt does not cancel everything.
    """
    async with Cancelable():
        with pytest.raises(error):
            getattr(registry, call)(**wanted)
        await checkpoint()


# --- Cancelling


async def test_cancelling_by_id(registry: OperationRegistry) -> None:
    """
    It tells whether it did.
    """
    with pytest.raises(ManualCancelation, match=r"runaway \(by ada\)"):
        async with Cancelable() as operation:
            assert not registry.cancel("nobody")
            assert registry.cancel(operation.id, message="runaway", by="ada")
            assert not registry.cancel(operation.id)
            await sleep_forever()

    assert not registry.cancel(operation.id)


async def test_cancelling_by_snapshot(registry: OperationRegistry) -> None:
    """
    For whatever reason one gives.
    """
    async with Cancelable(raise_on_cancel=False) as operation:
        assert registry.cancel(registry.list()[0], CancelationReason.SHUTDOWN)
        await sleep_forever()

    assert operation.cancelation == Cancelation(CancelationReason.SHUTDOWN)


async def test_an_operation_that_is_late_is_cancelled_for_that(registry: OperationRegistry) -> None:
    """
    Whoever cancels it after its time has passed, comes too late.
    """
    async with Cancelable(timeout=1, raise_on_cancel=False) as operation:
        async with operation.shield():
            await sleep(2)
            assert not registry.cancel(operation.id)
        await sleep_forever()

    assert operation.cancelation is not None
    assert operation.cancelation.reason is CancelationReason.TIMEOUT


async def test_of_several_with_one_id_none_is_cancelled_by_it(registry: OperationRegistry) -> None:
    """
    It cannot be told which of them is meant; a snapshot tells.
    """
    async with (
        Cancelable(operation_id="7", name="first", raise_on_cancel=False) as first,
        Cancelable(operation_id="7", name="second", raise_on_cancel=False) as second,
        Cancelable(operation_id="8"),
    ):
        found = registry.get("7")
        assert found is not None
        assert found.name == "second"
        assert len(registry.list(id="7")) == 2

        with pytest.raises(LookupError, match="2 operations"):
            registry.cancel("7")
        assert not first.is_cancelled
        assert not second.is_cancelled

        assert registry.cancel(found)
        assert (first.is_cancelled, second.is_cancelled) == (False, True)
        assert registry.cancel_all(id="7") == 1
        assert first.is_cancelled


async def test_an_id_of_several_leads_to_those_that_are_left(registry: OperationRegistry) -> None:
    """
    Whichever of them goes first.
    """
    async with create_task_group() as tasks:

        async def work(leave: anyio.Event) -> None:
            async with Cancelable(operation_id="7", metadata={"leave": leave}):
                await leave.wait()

        events = [anyio.Event() for _ in range(3)]
        for event in events:
            tasks.start_soon(work, event)
            await wait_all_tasks_blocked()
        for place in (0, 1, 0):
            assert [context.metadata["leave"] for context in registry.list()] == events
            assert ["7" in registry, len(registry)] == [True, len(events)]
            events.pop(place).set()
            await wait_all_tasks_blocked()
        assert "7" not in registry


async def test_an_id_that_came_back_is_not_that_of_an_old_snapshot(registry: OperationRegistry) -> None:
    """
    A snapshot is of one operation, whatever id the next one has.
    """
    async with Cancelable(operation_id="7"):
        old = registry.get("7")
    assert old is not None
    pending = Cancelable(operation_id="7").context

    async with Cancelable(operation_id="7"):
        assert not registry.cancel(old)
        assert not registry.cancel(pending)
        assert old not in registry
        await checkpoint()


async def test_cancelling_all_that_are_meant(registry: OperationRegistry) -> None:
    """
    It tells how many, and leaves the others alone. Those that were cancelled before do not count.
    """
    stopped: list[str | None] = []

    async def work(name: str) -> None:
        async with Cancelable(name=name, raise_on_cancel=False) as operation:
            await sleep_forever()
        stopped.append(operation.name)

    async with create_task_group() as tasks:
        for name in ("report 1", "report 2", "mail"):
            tasks.start_soon(work, name)
        await wait_all_tasks_blocked()

        assert registry.cancel_all(name="report 1") == 1
        assert registry.cancel_all(CancelationReason.SHUTDOWN, "stop", by="ada", name_glob="report*") == 1
        await wait_all_tasks_blocked()
        assert sorted(map(str, stopped)) == ["report 1", "report 2"]
        assert registry.cancel_all() == 1

    assert registry.cancel_all() == 0
    shutdown = Cancelation(CancelationReason.SHUTDOWN, "stop", "ada")
    assert {context.name: context.cancelation == shutdown for context in registry.history()} == {
        "report 1": False,
        "report 2": True,
        "mail": False,
    }


@pytest.mark.parametrize("broken", [1, 2])
async def test_broken_callbacks_keep_nobody_running(registry: OperationRegistry, broken: int) -> None:
    """
    What they raise is raised, after all operations were cancelled.
    """

    def fail(_: Cancelation) -> None:
        raise KeyError("broken")

    async with (
        Cancelable(raise_on_cancel=False) as first,
        Cancelable(raise_on_cancel=False) as second,
        Cancelable(raise_on_cancel=False) as third,
    ):
        for operation in (first, second)[:broken]:
            operation.token.add_callback(fail)

        with pytest.raises(KeyError if broken == 1 else ExceptionGroup):
            registry.cancel_all()

        assert first.is_cancelled
        assert second.is_cancelled
        assert third.is_cancelled


@pytest.mark.parametrize(
    "call",
    [
        lambda registry: registry.cancel(7),
        lambda registry: registry.cancel("7", "manual"),
        lambda registry: registry.cancel_all("manual"),
    ],
)
async def test_cancelling_by_the_wrong_thing_is_refused(
    registry: OperationRegistry, call: Callable[[OperationRegistry], object]
) -> None:
    """
    Early, and nothing is cancelled.
    """
    async with Cancelable(operation_id="7"):
        with pytest.raises(TypeError):
            call(registry)
        await checkpoint()


@pytest.mark.real_time
async def test_cancelling_from_a_thread_wakes_an_idle_loop(registry: OperationRegistry) -> None:
    """
    At once, although the loop has nothing else to do.
    """
    started_at = anyio.current_time()
    async with Cancelable(raise_on_cancel=False) as operation:
        threading.Timer(0.05, registry.cancel, [operation.id]).start()
        with fail_after(5):
            await sleep_forever()

    assert anyio.current_time() - started_at < 3


def test_one_that_ends_while_it_is_looked_at_is_neither_shown_nor_cancelled() -> None:
    """
    An operation has its last status a moment before its observers hear of it.
    """
    registry = OperationRegistry()
    seen: list[object] = []

    class First:
        def on_transition(self, event: Transition) -> None:
            if event.context.status is COMPLETED:
                seen.extend([len(registry), registry.list(), registry.get("7"), "7" in registry])
                seen.append(registry.cancel("7"))

        def on_progress(self, event: Progress) -> None: ...

    async def work() -> None:
        async with Cancelable(operation_id="7", observers=[First(), registry]) as operation:
            assert operation.id in registry

    anyio.run(work)

    assert seen == [1, [], None, False, False]


# --- Afterwards


def test_the_history_is_bounded_by_count() -> None:
    """
    The latest stay, in order; none, if one wants none.
    """
    few, none = OperationRegistry(history=3), OperationRegistry(history=0)

    for number in range(8):
        event = made_by_hand(str(number))
        for registry in (few, none):
            registry.on_transition(event)
            registry.on_transition(ended(event))

    assert ids(few.history()) == ["5", "6", "7"]
    assert none.history() == []
    assert none.statistics().ended == 8


def test_the_history_is_bounded_by_age(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What is too old is not shown, and is let go of when something else ends.
    """
    now = 1000.0
    monkeypatch.setattr(_history, "monotonic", lambda: now)
    registry = OperationRegistry(history_age=100)

    def end(operation_id: str) -> weakref.ref[CancelationToken]:
        value = CancelationToken()  # something in the metadata
        event = replace(made_by_hand(operation_id, metadata={"value": value}), at=now)
        registry.on_transition(event)
        registry.on_transition(ended(event))
        return weakref.ref(value)

    end("1")
    now += 60
    value = end("2")
    assert ids(registry.history()) == ["1", "2"]
    now += 60
    assert ids(registry.history()) == ["2"]
    now += 120
    assert value() is not None
    end("3")
    gc.collect()
    assert value() is None
    assert ids(registry.history()) == ["3"]


def test_a_history_without_age_keeps_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    None is for ever.
    """
    registry = OperationRegistry(history_age=None)
    event = replace(made_by_hand("1"), at=-1e9)

    registry.on_transition(event)
    registry.on_transition(ended(event))

    assert ids(registry.history()) == ["1"]


def test_letting_go_of_the_old_does_not_take_the_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Another thread may write to a place of the ring between looking at it and clearing it.
    """
    history = _history.History(1, 10.0)
    old, new = (made_by_hand(name).context for name in "on")
    history.add(0.0, old)

    class Interrupted(dict[int, Any]):
        def pop(self, place: int, *default: Any) -> Any:
            self[place] = _history.Ended(1, 100.0, new)
            return super().pop(place, *default)

    monkeypatch.setattr(history, "_ring", Interrupted(history._ring))
    monkeypatch.setattr(_history, "monotonic", lambda: 100.0)

    assert history.contexts() == [new]


async def test_statistics(registry: OperationRegistry) -> None:
    """
    How many ended how, and for what.
    """
    assert registry.statistics().durations is None
    assert registry.statistics().cancel_latencies is None

    for seconds in range(1, 101):
        async with Cancelable():
            await sleep(seconds)
    async with Cancelable(timeout=HOUR, raise_on_cancel=False):
        await sleep_forever()
    with pytest.raises(ZeroDivisionError):
        async with Cancelable():
            raise ZeroDivisionError
    with CancelScope() as scope:
        async with Cancelable():
            scope.cancel()
            await sleep_forever()

    async with Cancelable() as cancelled_and_done:
        cancelled_and_done.cancel()
        statistics = registry.statistics()

    assert (statistics.running, statistics.ended) == (1, 103)
    assert statistics.by_status == {COMPLETED: 100, CANCELLED: 2, FAILED: 1}
    assert {reason: count for reason, count in statistics.by_reason.items() if count} == {
        CancelationReason.TIMEOUT: 1,
        CancelationReason.EXTERNAL: 1,
    }
    assert statistics.durations == Percentiles(103, 50, 96, 100)
    assert statistics.cancel_latencies is not None
    assert statistics.cancel_latencies.count == 1  # an outer scope does not tell when
    assert sum(registry.statistics().by_reason.values()) == 2  # the last one ran to its end


@pytest.mark.real_time
@pytest.mark.parametrize("how", ["cancel", "timeout", "parent", "enclosing", "before"])
async def test_latencies_count_from_the_cancelation(registry: OperationRegistry, how: str) -> None:
    """
    Not from when the operation started, nor from when it noticed.
    """
    outer = Cancelable(timeout=0.1 if how == "enclosing" else None, raise_on_cancel=False)
    parent = Cancelable(timeout=0.1 if how == "parent" else None, raise_on_cancel=False)
    options: dict[str, Any] = {"timeout": 0.1 if how == "timeout" else None, "raise_on_cancel": False}
    if how == "before":
        options["tokens"] = [CancelationToken()]
        options["tokens"][0].cancel()
        await sleep(0.1)

    async with parent, outer, Cancelable(operation_id="7", **options):
        if how == "cancel":
            await sleep(0.1)
            registry.cancel("7")
        with CancelScope(shield=True):
            await sleep(0.1 if how in {"cancel", "before"} else 0.2)
        await sleep_forever()

    latencies = registry.statistics().cancel_latencies
    duration = registry.history(id="7")[0].duration
    assert latencies is not None
    assert duration is not None
    # Compared with how long it ran, since a machine under load is late with all of it.
    assert latencies.p50 == pytest.approx(duration - (0 if how == "before" else 0.1), abs=0.05)


def test_percentiles_are_of_the_latest() -> None:
    """
    Of as many as one wants, so that memory is bounded; the counts go on.
    """
    registry = OperationRegistry(samples=2)

    for seconds in (100.0, 1.0, 2.0):
        event = made_by_hand("1")
        registry.on_transition(event)
        registry.on_transition(ended(event, duration=seconds))
    event = made_by_hand("1")
    registry.on_transition(event)
    registry.on_transition(ended(event, duration=None))

    assert registry.statistics().durations == Percentiles(2, 1.0, 2.0, 2.0)
    assert registry.statistics().ended == 4


# --- Other things that look like operations


def test_events_may_come_from_something_else() -> None:
    """
    Whoever makes events of its own has its work listed, and cancelled by token.
    """
    registry = OperationRegistry()
    token = CancelationToken()
    event = made_by_hand("7", token, name="GET /")
    pending = made_by_hand("8", duration=None)

    registry.on_transition(event)
    registry.on_transition(pending)
    progress = Progress(event.context, "half", {}, token, event.at - 10)
    registry.on_progress(replace(progress, context=replace(event.context, metadata={"status": 200})))

    assert registry.cancel("7", message="enough")
    assert str(token.cancelation) == "enough"
    context = registry.get("7")
    assert context is not None
    assert (str(context.cancelation), context.metadata) == ("enough", {"status": 200})
    assert context.duration is not None
    assert context.duration >= 10
    assert ids(registry.list(max_age=5)) == ["8"]
    assert ids(registry.list(min_age=5)) == ["7"]

    registry.on_transition(ended(event))
    registry.on_transition(ended(pending))
    assert len(registry) == 0
    assert registry.get("7") is None


def test_events_that_are_heard_too_late_bring_nothing_in() -> None:
    """
    An event keeps no operation alive: there may be none any more.
    """
    registry = OperationRegistry()

    class Gone: ...

    registry.on_transition(replace(made_by_hand("7"), _operation=weakref.ref(Gone())))

    assert len(registry) == 0


# --- Growth


def cost(call: Callable[[], object]) -> tuple[int, int]:
    """Count the calls that *call* makes, and the most memory that it has meanwhile, in KiB."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    gc.disable()
    tracemalloc.start()
    sys.setprofile(count)
    try:
        call()
    finally:
        sys.setprofile(None)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        gc.enable()
    return calls, peak // 1024


@pytest.mark.skipif(sys.gettrace() is not None, reason="a tracer has costs of its own")
def test_one_operation_costs_the_same_among_many() -> None:
    """
    Entering, finding, cancelling and leaving do as much among 20,000 operations as among 20.
    """

    def costs(number: int) -> list[tuple[int, int]]:
        registry = OperationRegistry()
        for other in range(number):
            registry.on_transition(made_by_hand(f"other {other}"))
        event = made_by_hand("7")
        return [
            cost(lambda: registry.on_transition(event)),
            cost(lambda: registry.get("7")),
            cost(lambda: "7" in registry),
            cost(lambda: registry.cancel("7")),
            cost(lambda: registry.on_transition(ended(event))),
        ]

    few, many = costs(20), costs(20_000)
    assert [calls for calls, _ in few] == [calls for calls, _ in many]
    assert max(kibibytes for _, kibibytes in many) < 100
