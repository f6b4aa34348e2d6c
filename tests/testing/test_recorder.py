"""The recorder: what operations did, and a story when it is not what was expected."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest
from anyio import create_task_group, sleep

from hother.cancelable import (
    Cancelable,
    CancelationReason,
    OperationStatus,
    TimeoutCancelation,
    add_observer,
)
from hother.cancelable.testing import Recorder


async def cancelled_while_cleaning_up(recorder: Recorder, seconds: float) -> None:
    async def cancel(operation: Cancelable) -> None:
        await sleep(1)
        operation.cancel(message="enough")

    operation = Cancelable(name="report", observers=[recorder], raise_on_cancel=False)
    async with create_task_group() as tasks, operation:
        tasks.start_soon(cancel, operation)
        try:
            await sleep(60)
        finally:
            async with operation.shield():
                await sleep(seconds)


async def test_it_records_the_operations_that_it_is_given_to() -> None:
    """
    And no others.
    """
    recorder = Recorder()

    async with Cancelable(name="seen", observers=[recorder]) as operation:
        await operation.report_progress("half", {"rows": 5})
    async with Cancelable(name="unseen"):
        pass

    assert recorder.statuses() == [OperationStatus.RUNNING, OperationStatus.COMPLETED]
    assert recorder.statuses("seen") == recorder.statuses(operation) == recorder.statuses(operation.id)
    assert recorder.statuses("unseen") == []
    assert recorder.progress() == ["half"]
    assert len(recorder.of()) == len(recorder.events) == 3
    recorder.assert_completed()
    recorder.assert_statuses(["running", "completed"], "seen")
    recorder.assert_progress(["half"], "seen")


async def test_as_a_block_it_records_all_operations() -> None:
    """
    As long as it lasts; entered twice, it records once.
    """
    with Recorder() as recorder, recorder:
        async with Cancelable(name="in"):
            assert recorder.open == ["in"]
    async with Cancelable(name="out"):
        pass

    assert [event.context.name for event in recorder.events] == ["in", "in"]
    assert recorder.open == []
    recorder.assert_nothing_open()


async def test_the_latency_is_on_the_loops_clock() -> None:
    """
    From the cancel to the end of the block, cleanup included.
    """
    recorder = Recorder()

    await cancelled_while_cleaning_up(recorder, 5)

    assert recorder.latency() == 5
    assert recorder.cancelation() is not None
    recorder.assert_cancelled("report", CancelationReason.MANUAL, within=5)
    with pytest.raises(AssertionError, match=r"within 4 seconds of that \(it took 5\); got, in order"):
        recorder.assert_cancelled(within=4)


async def test_there_is_no_latency_where_there_was_no_cancel() -> None:
    """
    Nor for a deadline, which nobody hears pass.
    """
    recorder = Recorder()
    assert recorder.latency() is None
    assert recorder.cancelation() is None

    async with Cancelable(name="done", observers=[recorder]):
        assert recorder.latency() is None
    with pytest.raises(TimeoutCancelation):
        async with Cancelable(timeout=1, name="late", observers=[recorder]):
            await sleep(2)

    assert recorder.latency("done") is None
    assert recorder.latency("late") is None
    recorder.assert_cancelled("late", CancelationReason.TIMEOUT, within=0)


async def test_it_leaves_nothing_on_tokens() -> None:
    """
    Neither when an operation ends, nor when the recording does.
    """
    with Recorder() as recorder:
        async with Cancelable() as ended:
            pass
        async with Cancelable() as running:
            recorder.__exit__(None, None, None)
            assert running.token.statistics().callbacks == 1  # its own block's

    assert ended.token.statistics().callbacks == 0


async def test_a_failed_assertion_tells_the_story() -> None:
    """
    What happened instead, in order.
    """
    recorder = Recorder()
    with pytest.raises(KeyError):
        async with Cancelable(name="report", observers=[recorder]) as operation:
            await operation.report_progress("half", {"rows": 5})
            await operation.report_progress("most")
            raise KeyError("lost")

    with pytest.raises(AssertionError) as failure:
        recorder.assert_cancelled("report", CancelationReason.TIMEOUT)

    first, *story = str(failure.value).splitlines()
    assert first == "expected 'report' to be cancelled for the reason 'timeout'; got, in order:"
    assert [line.partition(" s  ")[2] for line in story] == [
        "report: pending -> running",
        "report: 'half' {'rows': 5}",
        "report: 'most'",
        "report: running -> failed (KeyError('lost'))",
    ]
    recorder.assert_failed()


async def test_the_story_tells_why_an_operation_was_cancelled() -> None:
    """
    Its reason, and the message.
    """
    recorder = Recorder()
    await cancelled_while_cleaning_up(recorder, 0)

    assert str(recorder).endswith("report: running -> cancelled (manual: enough)")
    assertions: list[Callable[[], None]] = [
        recorder.assert_completed,
        recorder.assert_failed,
        lambda: recorder.assert_statuses(["running", "completed"]),
        lambda: recorder.assert_progress(["half"]),
        lambda: recorder.assert_cancelled("report", CancelationReason.SIGNAL),
    ]
    for wrong in assertions:
        with pytest.raises(AssertionError, match=r"got, in order:\n.*pending -> running"):
            wrong()


async def test_of_an_operation_that_it_does_not_know_it_tells_what_there_was_instead() -> None:
    """
    A misspelt name is found that way.
    """
    recorder = Recorder()
    with pytest.raises(
        AssertionError, match=r"expected the operation to be completed; got, in order:\n  \(nothing\)"
    ):
        recorder.assert_completed()

    async with Cancelable(name="report", observers=[recorder]):
        pass

    with pytest.raises(AssertionError, match=r"'rport' to be completed; got, in order:\n.*report: pending"):
        recorder.assert_completed("rport")


async def test_two_operations_of_one_name_are_not_mixed_up() -> None:
    """
    Whoever means one of them has to say which.
    """
    recorder = Recorder()
    for _ in range(2):
        async with Cancelable(name="twin", observers=[recorder]) as operation:
            await operation.report_progress("here")

    with pytest.raises(AssertionError, match="'twin' is not one operation, but 2: "):
        recorder.assert_completed("twin")
    recorder.assert_completed(operation)
    assert recorder.progress("twin") == ["here", "here"]


async def test_an_open_operation_is_named() -> None:
    """
    By its id, if it has no name.
    """
    with Recorder() as recorder:
        async with Cancelable(operation_id="17"):
            with pytest.raises(AssertionError, match=r"open: \['17'\]"):
                recorder.assert_nothing_open()
            await anyio.lowlevel.checkpoint()


async def test_it_may_come_late() -> None:
    """
    Of an operation that runs already it sees the end, and has no latency.
    """
    async with Cancelable(name="old", raise_on_cancel=False) as operation:
        with Recorder() as recorder:
            async with operation.shield():
                pass
    assert recorder.statuses() == [OperationStatus.SHIELDED, OperationStatus.RUNNING]

    async with Cancelable(name="old", raise_on_cancel=False) as operation:
        recorder = Recorder()
        remove = add_observer(recorder)
        operation.cancel()
        await sleep(1)
    remove()
    assert recorder.latency() is None
    recorder.assert_cancelled(within=0)
