"""Operations with sources: what interrupts the block, what leaves it, and what is left behind."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio import CancelScope, create_task_group, sleep, sleep_forever, wait_all_tasks_blocked
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

from hother.cancelable import (
    AllOfSource,
    AnyOfSource,
    Cancelable,
    Cancelation,
    CancelationError,
    CancelationReason,
    CancelationToken,
    ConditionCancelation,
    ConditionSource,
    ManualCancelation,
    OperationStatus,
    ParentCancelation,
    TimeoutCancelation,
    TimeoutSource,
    TokenSource,
    current_operation,
)

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

HOUR = 3600.0


class Own:
    """A source of the user's: runs a function."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function

    def __repr__(self) -> str:
        return "Own()"

    async def wait(self) -> Cancelation:
        await self.function()
        return Cancelation(CancelationReason.SHUTDOWN, "it is time")


async def fail() -> None:
    raise ZeroDivisionError("the source is broken")


async def fail_late() -> None:
    await sleep(1)
    await fail()


async def fail_in_cleanup() -> None:
    try:
        await sleep_forever()
    finally:
        await fail()


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """
    The errors that went to `sys.excepthook`.
    """
    errors: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda _, error, __: errors.append(error))
    return errors


# --- Firing


async def test_a_source_interrupts_the_block() -> None:
    """
    The error is that of its reason, and says which source it was.
    """
    start = anyio.current_time()

    with pytest.raises(ConditionCancelation) as caught:
        async with Cancelable.with_condition(lambda: anyio.current_time() > start + 4, 1.5) as operation:
            await sleep_forever()

    assert anyio.current_time() == start + 4.5
    assert operation.status is OperationStatus.CANCELLED
    assert operation.cancelation is caught.value.cancelation
    assert caught.value.cancelation.by is not None
    assert caught.value.cancelation.by.startswith("ConditionSource(test_a_source_interrupts_the_block")


async def test_of_several_sources_the_first_counts() -> None:
    """
    And of a source and a deadline, the earlier.
    """
    for first, timeout, end in ((2, None, 2), (3, 1, 1), (1, 3, 1)):
        start = anyio.current_time()

        with pytest.raises(TimeoutCancelation):
            async with Cancelable(timeout=timeout, sources=[TimeoutSource(5), TimeoutSource(first)]):
                await sleep_forever()

        assert anyio.current_time() - start == end


@pytest.mark.parametrize("kind", [AnyOfSource, AllOfSource])
async def test_a_timeout_within_a_composite_interrupts_the_block(kind: Any) -> None:
    """
    Nothing else has to happen for it to fire.
    """
    start = anyio.current_time()

    with pytest.raises(TimeoutCancelation):
        async with Cancelable(sources=[kind([TimeoutSource(2), TimeoutSource(3)])]):
            await sleep_forever()

    assert anyio.current_time() - start == (2 if kind is AnyOfSource else 3)


async def test_a_block_may_be_left_quietly() -> None:
    """
    As with every cancelation of its own.
    """
    async with Cancelable(sources=[TimeoutSource(1)], raise_on_cancel=False) as operation:
        await sleep_forever()

    assert operation.status is OperationStatus.CANCELLED
    assert operation.cancelation == Cancelation(
        CancelationReason.TIMEOUT, "timed out after 1 seconds", by="TimeoutSource(1)"
    )


async def test_a_source_that_fires_at_once_stops_the_first_checkpoint() -> None:
    """
    Not the entering of the block: it is as if its token had been cancelled before.
    """
    entered = False

    with pytest.raises(ConditionCancelation):
        async with Cancelable.with_condition(lambda: True) as operation:
            entered = operation.is_cancelled
            await checkpoint()
            pytest.fail("the checkpoint did not raise")

    assert entered


async def test_a_block_that_ends_first_is_not_cancelled() -> None:
    """
    Even if its source has begun to fire: the block is over.
    """
    token = CancelationToken()

    async with Cancelable(sources=[TokenSource(token)]) as operation:
        token.cancel()

    assert operation.status is OperationStatus.COMPLETED
    assert not operation.is_cancelled
    assert token.statistics().callbacks == 0


async def test_leaving_the_block_is_no_chance_to_be_cancelled() -> None:
    """
    What was done is done, although leaving waits for the sources.
    """
    for from_outside in (True, False):
        with CancelScope() as scope:
            async with Cancelable(sources=[TimeoutSource(5)]) as operation:
                if from_outside:
                    scope.cancel()
                else:
                    operation.cancel()

            assert operation.status is OperationStatus.COMPLETED


async def test_a_source_sees_its_operation() -> None:
    """
    A predicate can ask what it is asked for.
    """
    seen: list[Cancelable | None] = []

    def predicate() -> bool:
        seen.append(current_operation())
        return True

    with pytest.raises(ConditionCancelation):
        async with Cancelable.with_condition(predicate) as operation:
            await sleep_forever()

    assert seen == [operation]
    assert current_operation() is None


async def test_a_child_in_another_task_hears_of_it() -> None:
    """
    Its parent's source is its own business, too.
    """
    errors: list[CancelationError] = []

    async def child(parent: Cancelable) -> None:
        try:
            async with Cancelable(parent=parent):
                await sleep_forever()
        except CancelationError as error:
            errors.append(error)

    async with create_task_group() as tasks:
        with pytest.raises(TimeoutCancelation):
            async with Cancelable(sources=[TimeoutSource(1)]) as parent:
                tasks.start_soon(child, parent)
                await sleep_forever()

    assert isinstance(errors[0], ParentCancelation)
    assert errors[0].cancelation.cause is parent.cancelation


async def test_an_operation_of_an_operation_both_with_sources() -> None:
    """
    The inner block leaves the outer one's cancelation alone, and the other way round.
    """
    for outer, inner in ((1, 2), (2, 1)):
        start = anyio.current_time()
        with pytest.raises(TimeoutCancelation, match="timed out after 1 seconds"):
            async with Cancelable(sources=[TimeoutSource(outer)], name="outer") as first:
                async with Cancelable(sources=[TimeoutSource(inner)], name="inner") as second:
                    await sleep_forever()

        assert anyio.current_time() - start == 1
        assert second.cancelation is not None
        assert second.cancelation.reason is (
            CancelationReason.PARENT if outer < inner else CancelationReason.TIMEOUT
        )
        assert first.status is (OperationStatus.CANCELLED if outer < inner else OperationStatus.FAILED)


# --- Making one of others


async def test_combined_operations_have_all_sources() -> None:
    """
    Each of them, once, whether it can be hashed or not.
    """

    class Unhashable(Own):
        __hash__ = None  # type: ignore[assignment]

    calls: list[None] = []

    async def note() -> None:
        calls.append(None)
        await sleep_forever()

    shared = Unhashable(note)
    first = Cancelable(sources=[shared])
    combined = first.combine(Cancelable(sources=[shared, TimeoutSource(3)]), Cancelable.with_timeout(5))
    start = anyio.current_time()

    with pytest.raises(TimeoutCancelation):
        async with combined:
            await sleep_forever()

    assert anyio.current_time() - start == 3
    assert len(calls) == 1
    assert first.status is OperationStatus.PENDING


async def test_who_follows_an_operation_has_its_sources() -> None:
    """
    Before it was entered, while it runs, and after it was left: it waits for them by itself.
    """
    operation = Cancelable(sources=[TimeoutSource(3)], raise_on_cancel=False)
    start = anyio.current_time()

    with pytest.raises(TimeoutCancelation):
        async with operation.follow():
            await sleep_forever()
    assert anyio.current_time() == start + 3

    async def follow() -> None:
        await sleep(2)
        with pytest.raises(TimeoutCancelation):
            async with operation.follow():
                await sleep_forever()
        assert anyio.current_time() == start + 6

    async with create_task_group() as tasks:
        tasks.start_soon(follow)
        async with operation:
            await sleep_forever()

    async with Cancelable(sources=[TimeoutSource(3)]) as left:
        follower = left.follow()
    with pytest.raises(TimeoutCancelation):
        async with follower:
            await sleep_forever()
    assert anyio.current_time() == start + 9


# --- What leaves the block


async def test_a_single_error_leaves_as_itself() -> None:
    """
    Not within a group, be it an error, a group of the body's own, or an exit of the program.
    """
    for error in (ValueError("x"), ExceptionGroup("own", [ValueError("y")]), SystemExit(3), GeneratorExit()):
        with pytest.raises(type(error)) as caught:
            async with Cancelable(sources=[TimeoutSource(1)]) as operation:
                await checkpoint()
                raise error

        assert caught.value is error
        assert error.__context__ is None
        assert operation.status is OperationStatus.FAILED


async def test_a_cancelation_from_outside_passes_through_as_itself() -> None:
    """
    The very exception, to the scope that it belongs to; no error is made of it.
    """
    passed: list[BaseException] = []

    with CancelScope() as scope:
        try:
            async with Cancelable(sources=[TimeoutSource(5)]) as operation:
                scope.cancel()
                try:
                    await sleep_forever()
                except BaseException as error:
                    passed.append(error)
                    raise
        except BaseException as error:
            passed.append(error)
            raise

    assert scope.cancelled_caught
    assert passed[0] is passed[1]
    assert operation.status is OperationStatus.CANCELLED
    assert operation.cancelation == Cancelation(CancelationReason.EXTERNAL)


async def test_a_result_returned_from_the_block_is_returned() -> None:
    """
    Leaving the sources costs nothing of it.
    """

    async def work() -> int:
        async with Cancelable(sources=[TimeoutSource(5)]):
            await sleep(1)
            return 7

    assert await work() == 7


async def wait_forever(_: Cancelable) -> None:
    await sleep_forever()


async def return_after_a_second(_: Cancelable) -> None:
    await sleep(1)


async def raise_after_a_second(_: Cancelable) -> None:
    await sleep(1)
    raise ValueError


async def cancel_after_a_second(operation: Cancelable) -> None:
    await sleep(1)
    operation.cancel()
    await sleep_forever()


@pytest.mark.only_on("asyncio")
@pytest.mark.parametrize(
    "body", [wait_forever, return_after_a_second, raise_after_a_second, cancel_after_a_second]
)
@pytest.mark.parametrize("when", [0, 0.5, 1, 3])
async def test_a_native_cancel_is_never_lost(body: Callable[[Cancelable], Any], when: float) -> None:
    """
    Not in the block, not together with the operation's own, and not while leaving waits for a source.
    """

    async def slow_to_end() -> None:
        try:
            await sleep_forever()
        finally:
            with CancelScope(shield=True):
                await sleep(5)

    operation = Cancelable(sources=[Own(slow_to_end)])

    async def work() -> None:
        async with operation:
            await body(operation)

    task = asyncio.create_task(work())
    await asyncio.sleep(when)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert task.cancelled()
    assert operation.status is OperationStatus.CANCELLED


@pytest.mark.only_on("asyncio")
async def test_a_native_cancel_of_a_sources_task_ends_the_operation() -> None:
    """
    Nobody would be watching any more. The block's own task was not cancelled, so it raises an error.
    """
    with pytest.raises(CancelationError, match="the task of a source was ended by CancelledError") as caught:
        async with Cancelable(sources=[TimeoutSource(HOUR)]):
            next(task for task in asyncio.all_tasks() if task.get_name() == "TimeoutSource(3600)").cancel()
            await sleep_forever()

    assert caught.value.reason is CancelationReason.EXTERNAL
    assert caught.value.cancelation.by == "TimeoutSource(3600)"


# --- Sources that fail


@pytest.mark.parametrize("function", [fail, fail_late])
@pytest.mark.parametrize("quietly", [True, False])
async def test_a_source_that_fails_ends_the_operation(function: Any, quietly: bool) -> None:
    """
    With its own error, which is no cancelation and cannot be left quietly.
    """
    failures: list[BaseException] = []
    operation = Cancelable(sources=[Own(function), TimeoutSource(5)], raise_on_cancel=not quietly)
    operation.on_error(lambda _, error: failures.append(error))

    with pytest.raises(ZeroDivisionError, match="the source is broken") as caught:
        async with operation:
            await sleep_forever()

    assert failures == [caught.value]
    assert caught.value.__context__ is None
    assert operation.status is OperationStatus.FAILED
    assert operation.context.error == repr(caught.value)
    assert operation.cancelation is not None
    assert operation.cancelation.reason is CancelationReason.ERROR
    assert operation.cancelation.by == "Own()"


async def test_the_failure_of_a_source_can_be_checked_for() -> None:
    """
    A loop that never waits stops with it; the error that leaves is still the source's.
    """
    with pytest.raises(ZeroDivisionError):
        async with Cancelable(sources=[Own(fail)]) as operation:
            await cancel_shielded_checkpoint()
            operation.check()


async def test_a_source_that_fails_while_it_is_ended_fails_the_operation() -> None:
    """
    An error is not lost because the block has been left.
    """
    with pytest.raises(ZeroDivisionError):
        async with Cancelable(sources=[Own(fail_in_cleanup)]) as operation:
            await checkpoint()

    assert operation.status is OperationStatus.FAILED


async def test_the_bodys_error_goes_before_a_sources(reported: list[BaseException]) -> None:
    """
    Only one can leave. The other one is reported.
    """
    with pytest.raises(ValueError, match="the body"):
        async with Cancelable(sources=[Own(fail_in_cleanup)]):
            await checkpoint()
            raise ValueError("the body")

    assert [type(error) for error in reported] == [ZeroDivisionError]


async def test_a_cancelation_from_outside_goes_before_a_sources_error(reported: list[BaseException]) -> None:
    """
    It must not be swallowed.
    """
    with CancelScope() as scope:
        async with Cancelable(sources=[Own(fail_in_cleanup)]):
            scope.cancel()
            await checkpoint()

    assert scope.cancelled_caught
    assert [type(error) for error in reported] == [ZeroDivisionError]


async def test_of_two_failures_one_is_reported(reported: list[BaseException]) -> None:
    """
    Neither is lost.
    """
    with pytest.raises(ZeroDivisionError) as caught:
        async with Cancelable(sources=[Own(fail), Own(fail)]):
            await sleep_forever()

    assert len(reported) == 1
    assert reported[0] is not caught.value


@pytest.mark.only_on("trio")
async def test_an_exit_of_the_program_in_a_source_is_passed_on() -> None:
    """
    What is no ordinary error ends the block, and leaves it as itself.
    """

    async def leave() -> None:
        await sleep(1)
        raise SystemExit(3)

    for seconds in (0, HOUR):
        with pytest.raises(SystemExit) as caught:
            async with Cancelable(sources=[Own(leave)]) as operation:
                if seconds:
                    await sleep(seconds)
                else:
                    with CancelScope(shield=True):
                        await sleep(2)

        assert caught.value.code == 3
        assert operation.status is OperationStatus.FAILED


@pytest.mark.only_on("trio")
async def test_an_exit_and_an_error_leave_together() -> None:
    """
    Both are worse than to be left out.
    """

    async def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(BaseExceptionGroup) as caught:
        async with Cancelable(sources=[Own(leave)]):
            raise ValueError

    assert {type(error) for error in caught.value.exceptions} == {SystemExit, ValueError}


# --- Nothing is left


async def test_an_operation_without_sources_has_no_task() -> None:
    """
    Only who has sources pays for them.
    """
    before = len(anyio.get_running_tasks())

    async with Cancelable():
        await wait_all_tasks_blocked()
        assert len(anyio.get_running_tasks()) == before

    async with Cancelable(sources=[TimeoutSource(1), TimeoutSource(2)]):
        assert len(anyio.get_running_tasks()) == before + 2


async def test_a_finished_operation_is_kept_by_nothing() -> None:
    """
    It goes without the garbage collector.
    """
    source = TimeoutSource(5)
    gc.disable()
    try:
        async with Cancelable(sources=[source]) as operation:
            await checkpoint()
        reference = weakref.ref(operation)
        del operation
        await checkpoint()

        assert reference() is None
    finally:
        gc.enable()


async def test_an_error_at_the_start_ends_the_sources() -> None:
    """
    A cancelation while the block is entered leaves no task.
    """
    token = CancelationToken()
    operation = Cancelable(sources=[TokenSource(token)])
    operation.on_start(lambda _: sys.exit(2))

    with pytest.raises(SystemExit):
        async with operation:
            pytest.fail("the block ran")

    assert operation.status is OperationStatus.FAILED
    assert token.statistics().callbacks == 0


def cancel_both(operation: Cancelable, scope: CancelScope, token: CancelationToken) -> None:
    operation.cancel()
    scope.cancel()


CANCELS: dict[str, Callable[[Cancelable, CancelScope, CancelationToken], object]] = {
    "operation": lambda operation, scope, token: operation.cancel(),
    "source": lambda operation, scope, token: token.cancel(),
    "scope": lambda operation, scope, token: scope.cancel(),
    "both": cancel_both,
}


async def run_to_its_end(operation: Cancelable, scope: CancelScope) -> str:
    """Run a block of a few steps, and tell how it ended."""
    outcome = ""
    with scope:
        try:
            async with operation:
                for _ in range(5):
                    await checkpoint()
            outcome = "completed"
        except ManualCancelation:
            outcome = "cancelled"
        finally:
            assert outcome in {"", operation.status}
            assert operation.status.is_final
            assert current_operation() is None
    return "from outside" if scope.cancelled_caught else outcome


@pytest.mark.parametrize("what", CANCELS)
async def test_cancelled_at_any_moment_it_ends_and_leaves_nothing(what: str) -> None:
    """
    After each number of steps: the status is final, nothing listens, and the outside gets what is its.
    """
    outcomes: list[str] = []

    async def run(operation: Cancelable, scope: CancelScope) -> None:
        outcomes.append(await run_to_its_end(operation, scope))

    for steps in range(30):
        token, other = CancelationToken(), CancelationToken()
        either = AnyOfSource([TokenSource(other), ConditionSource(bool)])
        operation = Cancelable(sources=[TokenSource(token), either])
        async with create_task_group() as tasks:
            scope = CancelScope()
            tasks.start_soon(run, operation, scope)
            for _ in range(steps):
                await checkpoint()
            CANCELS[what](operation, scope, token)

        assert operation.status.is_final
        assert {each.statistics().callbacks for each in (token, other, operation.token)} == {0}

    assert len(outcomes) == 30
    assert outcomes[-1] == "completed"
    assert set(outcomes) - {"completed"} == {
        "cancelled" if what in {"operation", "source"} else "from outside"
    }


@pytest.mark.only_on("asyncio")
@pytest.mark.parametrize("cancels_operation", [False, True])
async def test_a_task_cancelled_at_any_moment_is_cancelled(cancels_operation: bool) -> None:
    """
    Natively, with or without the operation at the same moment: it ends, and its end is the task's.
    """
    ends: list[bool] = []
    for steps in range(1, 30):
        token = CancelationToken()
        operation = Cancelable(sources=[TokenSource(token), AnyOfSource([TokenSource(token)])])
        task = asyncio.create_task(run_to_its_end(operation, CancelScope()))
        for _ in range(steps):
            await checkpoint()
        if cancels_operation:
            operation.cancel()
        was_cancelled = task.cancel()
        await asyncio.wait([task])

        assert task.cancelled() is was_cancelled
        assert operation.status.is_final
        assert token.statistics().callbacks == operation.token.statistics().callbacks == 0
        ends.append(was_cancelled)

    assert ends[0]
    assert not ends[-1]
