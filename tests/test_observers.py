"""Observers: one call for each transition and each report of progress."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from time import monotonic
from typing import Any

import pytest
from anyio import CancelScope, sleep_forever
from anyio.lowlevel import checkpoint

from hother.cancelable import (
    Cancelable,
    ManualCancelation,
    Observer,
    OperationContext,
    OperationStatus,
    Progress,
    Transition,
    _scope,
    add_observer,
)

PENDING, RUNNING, SHIELDED = OperationStatus.PENDING, OperationStatus.RUNNING, OperationStatus.SHIELDED
COMPLETED, CANCELLED, FAILED = OperationStatus.COMPLETED, OperationStatus.CANCELLED, OperationStatus.FAILED


class Recorder:
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.transitions: list[tuple[OperationStatus, OperationStatus]] = []
        self.contexts: list[OperationContext] = []
        self.progress: list[tuple[str, Any, Mapping[str, Any]]] = []

    def on_transition(self, event: Transition) -> None:
        self.transitions.append((event.previous, event.context.status))
        self.contexts.append(event.context)

    def on_progress(self, event: Progress) -> None:
        self.progress.append((event.context.id, event.message, event.metadata))


class Broken:
    """Fails at everything."""

    def on_transition(self, event: Transition) -> None:
        raise KeyError("transition")

    def on_progress(self, event: Progress) -> None:
        raise KeyError("progress")


@contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Have the observer watch all operations meanwhile."""
    remove = add_observer(observer)
    try:
        yield
    finally:
        remove()


async def test_an_observer_hears_of_each_transition() -> None:
    """
    From entering to leaving, in order, and of shielded sections in between.
    """
    recorder = Recorder()

    async with Cancelable(observers=[recorder]) as operation:
        async with operation.shield(), operation.shield():
            pass

    assert recorder.transitions == [
        (PENDING, RUNNING),
        (RUNNING, SHIELDED),
        (SHIELDED, RUNNING),
        (RUNNING, COMPLETED),
    ]
    assert {context.id for context in recorder.contexts} == {operation.id}


async def test_an_observer_hears_how_the_operation_ended() -> None:
    """
    The context of the last transition says why.
    """
    recorder = Recorder()

    with pytest.raises(ManualCancelation):
        async with Cancelable(observers=[recorder]) as operation:
            operation.cancel(message="enough")
            await sleep_forever()

    with pytest.raises(ZeroDivisionError):
        async with Cancelable(observers=[recorder]):
            raise ZeroDivisionError

    with CancelScope() as scope:
        async with Cancelable(observers=[recorder]):
            scope.cancel()
            await sleep_forever()

    own, failed, outside = recorder.contexts[1::2]
    assert [context.status for context in (own, failed, outside)] == [CANCELLED, FAILED, CANCELLED]
    assert [str(context.cancelation) for context in (own, failed, outside)] == [
        "enough",
        "None",
        "an enclosing scope or task was cancelled",
    ]
    assert failed.error == "ZeroDivisionError()"


async def test_a_cancelation_from_outside_leaves_no_operation_running() -> None:
    """
    Whoever counts starts and ends comes to zero, whatever ended the operation.
    """
    recorder = Recorder()

    with observing(recorder), CancelScope() as scope:
        async with Cancelable(), Cancelable():
            scope.cancel()
            await checkpoint()

    started = [context.id for context in recorder.contexts if context.status is RUNNING]
    ended = [context.id for context in recorder.contexts if context.status.is_final]
    assert started == list(reversed(ended))


async def test_an_observer_hears_of_progress() -> None:
    """
    Once for each report.
    """
    recorder = Recorder()

    async with Cancelable(observers=[recorder], operation_id="7") as operation:
        await operation.report_progress("half", {"percent": 50})

    assert recorder.progress == [("7", "half", {"percent": 50})]


async def test_an_observer_of_everything_watches_until_it_is_taken_back() -> None:
    """
    It also hears of operations that were made before it came, and nothing after it went.
    """
    recorder = Recorder()
    operation = Cancelable()
    remove = add_observer(recorder)

    async with operation:
        remove()
        remove()
    async with Cancelable():
        pass

    assert recorder.transitions == [(PENDING, RUNNING)]


async def test_an_observer_that_is_added_twice_hears_twice() -> None:
    """
    Each adding is taken back by itself.
    """
    recorder = Recorder()

    with observing(recorder), observing(recorder):
        async with Cancelable():
            pass
    with observing(recorder):
        async with Cancelable():
            pass

    assert len(recorder.transitions) == 6


async def test_own_observers_hear_before_those_of_everything() -> None:
    """
    All of them hear, in the order in which they were named.
    """
    heard: list[str] = []

    class Named(Recorder):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def on_transition(self, event: Transition) -> None:
            heard.append(self.name)

    with observing(Named("c")):
        async with Cancelable(observers=(Named(name) for name in "ab")):
            pass

    assert heard == ["a", "b", "c"] * 2


async def test_a_broken_observer_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The others hear all the same, and its errors go where a program's uncaught errors go.
    """
    reported: list[str] = []
    monkeypatch.setattr(sys, "excepthook", lambda _type, error, _tb: reported.append(repr(error)))
    recorder = Recorder()

    async with Cancelable(observers=[Broken(), recorder]) as operation:
        await operation.report_progress("half")

    assert reported == ["KeyError('transition')", "KeyError('progress')", "KeyError('transition')"]
    assert len(recorder.transitions) == 2
    assert len(recorder.progress) == 1


async def test_errors_of_observers_are_reported_after_all_have_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    A hook that is slow, or that ends the program, keeps nobody from hearing.
    """
    recorder = Recorder()
    heard: list[int] = []
    monkeypatch.setattr(sys, "excepthook", lambda *_: heard.append(len(recorder.transitions)))

    async with Cancelable(observers=[Broken(), recorder]):
        pass

    assert heard == [1, 2]


async def test_an_observer_that_raises_an_exit_ends_the_program() -> None:
    """
    Only errors are held back; an exit is meant for the whole program, and leaves nothing behind.
    """

    class Exit(Recorder):
        def on_transition(self, event: Transition) -> None:
            raise SystemExit

    parent = Cancelable()

    with pytest.raises(SystemExit):
        async with Cancelable(observers=[Exit()], parent=parent):
            pytest.fail("the block was entered")

    assert parent.token.statistics().callbacks == 0


async def test_a_combination_has_the_observers_of_its_parts() -> None:
    """
    One that watches several parts hears once.
    """
    both, one = Recorder(), Recorder()

    async with Cancelable(observers=[both]).combine(Cancelable(observers=[both, one])):
        pass

    assert both.transitions == one.transitions == [(PENDING, RUNNING), (RUNNING, COMPLETED)]


async def test_an_event_stays_what_it_was() -> None:
    """
    It shows the operation at that moment, to observers that hear later, and to those that keep it.
    """

    class Meddler(Recorder):
        def on_transition(self, event: Transition) -> None:
            event.token.cancel(message="meddled")

        def on_progress(self, event: Progress) -> None:
            operation.metadata["step"] = "changed"

    recorder = Recorder()
    reported = {"percent": 50}
    operation = Cancelable(observers=[Meddler(), recorder], metadata={"step": 1}, raise_on_cancel=False)

    async with operation:
        await operation.report_progress("half", reported)
        reported["percent"] = 100

    running, done = recorder.contexts
    assert recorder.progress == [(operation.id, "half", {"percent": 50})]
    assert (running.status, running.cancelation, running.metadata) == (RUNNING, None, {"step": 1})
    assert (done.status, str(done.cancelation), done.metadata) == (COMPLETED, "meddled", {"step": "changed"})


async def test_an_observer_can_cancel_the_operation() -> None:
    """
    Each event has the operation's own token.
    """

    class Refusing(Recorder):
        def on_transition(self, event: Transition) -> None:
            event.token.cancel(message="refused")

    class Impatient(Recorder):
        def on_progress(self, event: Progress) -> None:
            event.token.cancel(message="enough")

    for observer, message in ((Refusing(), "refused"), (Impatient(), "enough")):
        with pytest.raises(ManualCancelation, match=message):
            async with Cancelable(observers=[observer]) as operation:
                await operation.report_progress("half")
                await sleep_forever()


async def test_events_have_their_time_and_keep_no_operation_alive() -> None:
    """
    All observers get the same event, and may keep it.
    """

    class Keeping(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.events: list[Transition | Progress] = []

        def on_transition(self, event: Transition) -> None:
            self.events.append(event)

        def on_progress(self, event: Progress) -> None:
            self.events.append(event)

    one, other = Keeping(), Keeping()

    before = monotonic()
    async with Cancelable(observers=[one, other]) as operation:
        await operation.report_progress("half")
    after = monotonic()
    reference = weakref.ref(operation)
    del operation
    gc.collect()

    times = [event.at for event in one.events]
    assert [before, *times, after] == sorted([before, *times, after])
    assert all(event is same for event, same in zip(one.events, other.events, strict=True))
    assert reference() is None


async def test_where_nobody_watches_nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Operations pay for events only while there are observers.
    """
    made: list[str] = []

    def count(kind: type[object], *args: Any, **kwargs: Any) -> object:
        made.append(kind.__name__)
        return kind(*args, **kwargs)

    for kind in (OperationContext, Transition, Progress):
        monkeypatch.setattr(_scope, kind.__name__, partial(count, kind))

    async def work(**options: Any) -> list[str]:
        made.clear()
        async with Cancelable(**options) as operation, operation.shield():
            await operation.report_progress("half")
        return made

    step = ["OperationContext", "Transition"]
    assert await work() == []
    assert await work(observers=[Recorder()]) == [*step * 2, "OperationContext", "Progress", *step * 2]
