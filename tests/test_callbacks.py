"""Callbacks of an operation, plain and async, and its reports of progress."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import pytest
from anyio import CancelScope, sleep, sleep_forever
from anyio.lowlevel import checkpoint

from hother.cancelable import (
    Cancelable,
    Cancelation,
    CancelationError,
    CancelationReason,
    LifecycleError,
    ManualCancelation,
    OperationContext,
    OperationStatus,
    TimeoutCancelation,
)

ENDINGS = ("completed", "failed", "own", "quiet", "timeout", "outside")


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """
    The errors that were reported to `sys.excepthook`.
    """
    errors: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda _type, error, _traceback: errors.append(error))
    return errors


def watched(calls: list[Any], **options: Any) -> Cancelable:
    """Make an operation that notes each of its callbacks."""

    def note(event: str) -> Callable[..., None]:
        return lambda *args: calls.append((event, *args))

    return (
        Cancelable(**options)
        .on_start(note("start"))
        .on_progress(note("progress"))
        .on_complete(note("complete"))
        .on_cancel(note("cancel"))
        .on_error(note("error"))
    )


async def end(operation: Cancelable, how: str) -> BaseException | None:
    """Run the operation to an end of the given kind, and return what it raised, if that was ours."""
    with CancelScope() as scope:
        try:
            async with operation:
                if how == "failed":
                    raise ZeroDivisionError
                if how in ("own", "quiet"):
                    operation.cancel()
                if how == "outside":
                    scope.cancel()
                if how != "completed":
                    await sleep_forever()
        except Exception as error:
            return error
    return None


def options_for(how: str) -> dict[str, Any]:
    return {"timeout": 1 if how == "timeout" else None, "raise_on_cancel": how != "quiet"}


@pytest.mark.parametrize(
    ("how", "expected", "status", "reason"),
    [
        ("completed", "complete", OperationStatus.COMPLETED, None),
        ("failed", "error", OperationStatus.FAILED, None),
        ("own", "cancel", OperationStatus.CANCELLED, CancelationReason.MANUAL),
        ("quiet", "cancel", OperationStatus.CANCELLED, CancelationReason.MANUAL),
        ("timeout", "cancel", OperationStatus.CANCELLED, CancelationReason.TIMEOUT),
        ("outside", "cancel", OperationStatus.CANCELLED, CancelationReason.EXTERNAL),
    ],
)
async def test_each_ending_has_its_callback(
    how: str, expected: str, status: OperationStatus, reason: CancelationReason | None
) -> None:
    """
    One callback at the start and one at the end, and they know how it ended and why.
    """
    calls: list[Any] = []

    error = await end(watched(calls, **options_for(how)), how)

    assert [call[0] for call in calls] == ["start", expected]
    assert calls[0][1].status is OperationStatus.RUNNING

    context: OperationContext = calls[1][1]
    assert context.status is status
    assert (context.cancelation and context.cancelation.reason) == reason

    if how == "failed":
        assert calls[1][2] is error
        assert context.error == "ZeroDivisionError()"


async def test_an_operation_that_raises_its_own_error_from_check_was_cancelled() -> None:
    """
    It is the cancel callback that hears of it.
    """
    calls: list[Any] = []

    with pytest.raises(ManualCancelation):
        async with watched(calls) as operation:
            operation.cancel()
            operation.check()

    assert [call[0] for call in calls] == ["start", "cancel"]


async def test_the_error_callback_gets_what_leaves_the_block() -> None:
    """
    Of a group with own cancelations in it, that is the rest.
    """
    calls: list[Any] = []

    async def fail() -> None:
        try:
            await sleep_forever()
        finally:
            raise ZeroDivisionError

    with pytest.RaisesGroup(ZeroDivisionError) as caught:
        async with watched(calls) as operation, anyio.create_task_group() as group:
            group.start_soon(fail)
            group.start_soon(sleep_forever)
            await anyio.wait_all_tasks_blocked()
            operation.cancel()

    assert calls[-1][0] == "error"
    assert calls[-1][2] is caught.value


@pytest.mark.parametrize("how", ENDINGS)
async def test_callbacks_run_one_after_the_other_in_the_order_of_adding(how: str) -> None:
    """
    Plain and async ones take turns, also under a cancelation: async ones run to their end.
    """
    steps: list[str] = []

    async def slow(*_: object) -> None:
        steps.append("slow begins")
        await sleep(1)
        steps.append("slow ends")

    operation = Cancelable(**options_for(how))
    for on in (operation.on_complete, operation.on_cancel, operation.on_error):
        on(lambda *_: steps.append("first"))
        on(slow)
        on(lambda *_: steps.append("last"))

    await end(operation, how)

    assert steps == ["first", "slow begins", "slow ends", "last"]


async def test_a_start_callback_ends_before_the_block_begins() -> None:
    """
    Also if the operation is to be cancelled at its first checkpoint.
    """
    steps: list[str] = []

    async def slow(_: OperationContext) -> None:
        await sleep(1)
        steps.append("started")

    operation = Cancelable().on_start(slow)
    operation.cancel()
    with pytest.raises(ManualCancelation):
        async with operation:
            steps.append("block")
            await checkpoint()
            steps.append("after the checkpoint")

    assert steps == ["started", "block"]


async def test_a_start_callback_may_cancel() -> None:
    """
    The block is entered all the same, and interrupted at its first checkpoint.
    """
    operation = Cancelable()
    operation.on_start(lambda _: operation.cancel())

    with pytest.raises(ManualCancelation):
        async with operation:
            await checkpoint()
            pytest.fail("the checkpoint did not raise")


async def test_the_time_of_a_start_callback_counts() -> None:
    """
    The deadline counts from entering, and strikes in the block.
    """
    entered = False

    async def slow(_: OperationContext) -> None:
        await sleep(3)

    with pytest.raises(TimeoutCancelation):
        async with Cancelable(timeout=2).on_start(slow):
            entered = True
            await checkpoint()

    assert entered


@pytest.mark.parametrize("how", ENDINGS)
async def test_errors_of_callbacks_are_reported_and_change_nothing(
    how: str, reported: list[BaseException]
) -> None:
    """
    The other callbacks run, the operation ends as it would have, and the error is there to be seen.
    """
    calls: list[Any] = []

    async def slow(*_: object) -> None:
        await sleep(1)
        raise KeyError("slow")

    def fast(*_: object) -> None:
        raise KeyError("fast")

    broken = Cancelable(**options_for(how))
    for on in (broken.on_start, broken.on_complete, broken.on_cancel, broken.on_error):
        on(fast)
        on(slow)
    broken = broken.combine(watched(calls))

    error = await end(broken, how)
    expected = await end(Cancelable(**options_for(how)), how)

    assert type(error) is type(expected)
    assert len(calls) == 2
    assert [repr(error) for error in reported] == ["KeyError('fast')", "KeyError('slow')"] * 2
    assert all(error.__traceback__ for error in reported)


async def test_errors_are_reported_after_the_other_callbacks_have_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    A hook that is slow, or that ends the program, keeps none of them from running.
    """
    steps: list[str] = []
    monkeypatch.setattr(sys, "excepthook", lambda _type, error, _traceback: steps.append(repr(error)))

    async with Cancelable().on_complete(lambda _: 1 / 0).on_complete(lambda _: steps.append("next")):
        pass

    assert steps == ["next", "ZeroDivisionError('division by zero')"]


async def test_a_callback_that_never_ends_is_cut_short(reported: list[BaseException]) -> None:
    """
    Its time is bounded, and using it up is an error like others.
    """
    steps: list[str] = []

    async def hang(_: OperationContext) -> None:
        try:
            await sleep_forever()
        finally:
            steps.append("interrupted")

    async with Cancelable().on_complete(hang).on_complete(lambda _: steps.append("next")):
        pass

    assert steps == ["interrupted", "next"]
    assert [type(error) for error in reported] == [TimeoutError]


async def test_any_awaitable_will_do() -> None:
    """
    A callback is async if what it returns can be awaited.
    """
    steps: list[str] = []

    class Later:
        def __await__(self) -> Any:
            yield from checkpoint().__await__()
            steps.append("awaited")

    async with Cancelable().on_complete(lambda _: Later()):
        pass

    assert steps == ["awaited"]


@pytest.mark.parametrize("name", ["on_start", "on_progress", "on_complete", "on_cancel", "on_error"])
def test_a_callback_must_be_callable(name: str) -> None:
    """
    A mistake is found where it is made.
    """
    with pytest.raises(TypeError, match="a callback must be callable, got 42"):
        getattr(Cancelable(), name)(42)


async def test_by_the_time_of_the_last_callback_nothing_is_registered() -> None:
    """
    A callback that inspects or cancels what the operation was made of disturbs nobody.
    """
    parent = Cancelable()
    counts: list[int] = []

    async with Cancelable(parent=parent, tokens=[parent.token]).on_complete(
        lambda _: counts.append(parent.token.statistics().callbacks)
    ):
        counts.append(parent.token.statistics().callbacks)

    assert counts == [2, 0]


async def test_a_callback_may_use_operations_itself() -> None:
    """
    They work in a callback as anywhere else, though it is shielded from what ended the operation.
    """
    errors: list[CancelationError] = []

    async def tidy(_: OperationContext) -> None:
        try:
            async with Cancelable(timeout=1):
                await sleep_forever()
        except TimeoutCancelation as error:
            errors.append(error)

    operation = Cancelable().on_cancel(tidy)
    with pytest.raises(ManualCancelation):
        async with operation:
            operation.cancel()
            await sleep_forever()

    assert len(errors) == 1


# --- Progress


async def test_progress_is_reported_to_callbacks() -> None:
    """
    With the operation's id, any message, and metadata if there is some.
    """
    calls: list[Any] = []

    async with watched(calls, operation_id="7") as operation:
        await operation.report_progress("half", {"percent": 50})
        await operation.report_progress(100)

    assert calls[1:3] == [("progress", "7", "half", {"percent": 50}), ("progress", "7", 100, {})]


async def test_progress_callbacks_may_be_async() -> None:
    """
    The report is over when they are.
    """
    steps: list[str] = []

    async def slow(_id: str, message: Any, _metadata: Mapping[str, Any]) -> None:
        await sleep(1)
        steps.append(message)

    async with Cancelable().on_progress(slow) as operation:
        await operation.report_progress("half")
        steps.append("reported")

    assert steps == ["half", "reported"]


async def test_errors_of_progress_callbacks_are_reported(reported: list[BaseException]) -> None:
    """
    They do not break the block.
    """
    calls: list[str] = []

    async with Cancelable() as operation:
        operation.on_progress(lambda *_: 1 / 0)
        operation.on_progress(lambda *_: calls.append("next"))
        await operation.report_progress("half")

    assert calls == ["next"]
    assert [type(error) for error in reported] == [ZeroDivisionError]


async def test_progress_without_async_callbacks_is_no_checkpoint() -> None:
    """
    Even a cancelled operation can report what it has done so far.
    """
    calls: list[Any] = []

    with pytest.raises(ManualCancelation):
        async with watched(calls) as operation:
            operation.cancel()
            await operation.report_progress("so far")
            await checkpoint()

    assert calls[1][2] == "so far"


async def test_progress_can_be_reported_from_a_shielded_section() -> None:
    """
    The operation is running there, too.
    """
    calls: list[Any] = []

    async with watched(calls) as operation, operation.shield():
        await operation.report_progress("committing")

    assert calls[1][2] == "committing"


async def test_only_a_running_operation_makes_progress() -> None:
    """
    Before and after the block a report is a mistake.
    """
    operation = Cancelable()

    with pytest.raises(LifecycleError, match="an operation that is pending cannot report progress"):
        await operation.report_progress("too early")

    async with operation:
        pass

    with pytest.raises(LifecycleError, match="an operation that is completed cannot report progress"):
        await operation.report_progress("too late")


async def test_errors_of_the_tokens_callbacks_do_not_break_the_operation(
    reported: list[BaseException],
) -> None:
    """
    Who waits for the operation's token is an onlooker, too, when the operation itself cancels it.
    """
    heard: list[Cancelation] = []

    for how in ("timeout", "outside"):
        operation = Cancelable(**options_for(how))
        operation.token.add_callback(lambda _: 1 / 0)
        operation.token.add_callback(heard.append)
        error = await end(operation, how)

        assert operation.status is OperationStatus.CANCELLED
        assert type(error) is (TimeoutCancelation if how == "timeout" else type(None))

    assert len(heard) == 2
    assert [type(error) for error in reported] == [ZeroDivisionError] * 2


async def test_errors_of_the_tokens_callbacks_do_not_keep_the_block_from_being_entered(
    reported: list[BaseException],
) -> None:
    """
    Nor when the operation hears of a cancelation while it is entered.
    """
    parent = Cancelable()
    parent.cancel()
    operation = Cancelable(parent=parent)
    operation.token.add_callback(lambda _: 1 / 0)
    entered = False

    with pytest.raises(CancelationError):
        async with operation:
            entered = True
            await checkpoint()

    assert entered
    assert [type(error) for error in reported] == [ZeroDivisionError]
