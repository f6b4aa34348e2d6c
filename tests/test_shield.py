"""Sections of a block that its cancelation must not interrupt."""

from __future__ import annotations

from datetime import timedelta
from math import nan
from typing import Any

import anyio
import pytest
from anyio import CancelScope, create_task_group, move_on_after, sleep, sleep_forever, wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from hother.cancelable import (
    Cancelable,
    CancelationReason,
    LifecycleError,
    ManualCancelation,
    OperationStatus,
    TimeoutCancelation,
)


async def test_a_shielded_section_runs_to_its_end() -> None:
    """
    The cancelation waits, and strikes at the first checkpoint after the section.
    """
    steps: list[str] = []

    with pytest.raises(ManualCancelation):
        async with Cancelable() as operation:
            async with operation.shield() as shielded:
                assert shielded is operation

                operation.cancel()
                await sleep(1)
                steps.append("section")
            steps.append("after the section")
            await checkpoint()
            steps.append("after the checkpoint")

    assert steps == ["section", "after the section"]


async def test_a_shield_holds_off_timeouts_and_scopes_outside() -> None:
    """
    Whatever asks the block to stop must wait.
    """
    start = anyio.current_time()

    with move_on_after(1):
        async with Cancelable(timeout=2) as operation:
            async with operation.shield():
                await sleep(3)
            await checkpoint()

    assert anyio.current_time() - start == 3
    assert operation.status is OperationStatus.CANCELLED


async def test_a_section_in_a_cancelled_operation_can_still_be_entered() -> None:
    """
    Cleanup that must wait for something does so in a shielded section.
    """
    cleaned = False

    with pytest.raises(ManualCancelation):
        async with Cancelable() as operation:
            operation.cancel()
            try:
                await sleep_forever()
            finally:
                async with operation.shield(5):
                    await sleep(1)
                    cleaned = True

    assert cleaned


async def test_a_section_without_a_cancelation_changes_nothing() -> None:
    """
    Values and errors pass through a shield.
    """
    async with Cancelable() as operation:
        async with operation.shield(1):
            pass

        with pytest.raises(ZeroDivisionError):
            async with operation.shield(1):
                raise ZeroDivisionError

        await sleep(2)

    assert operation.status is OperationStatus.COMPLETED


@pytest.mark.parametrize("budget", [2, 2.0, timedelta(seconds=2)])
async def test_a_section_is_interrupted_when_its_budget_is_used_up(budget: Any) -> None:
    """
    A shield is no way to hang for ever.
    """
    start = anyio.current_time()

    async with Cancelable() as operation:
        with pytest.raises(TimeoutCancelation, match="used up its 2 seconds") as caught:
            async with operation.shield(budget):
                await sleep_forever()

        assert operation.status is OperationStatus.RUNNING

    assert anyio.current_time() - start == 2
    assert caught.value.reason is CancelationReason.TIMEOUT
    assert operation.status is OperationStatus.COMPLETED
    assert not operation.is_cancelled


async def test_a_section_that_is_in_time_is_not_touched() -> None:
    """
    The budget counts from entering the section, and only for it.
    """
    async with Cancelable() as operation:
        shield = operation.shield(2)
        await sleep(5)
        async with shield:
            await sleep(1)
        await sleep(5)


async def test_a_section_that_ends_without_a_checkpoint_used_its_budget_well() -> None:
    """
    Only a section that was really cut short raises.
    """
    async with Cancelable() as operation, operation.shield(0):
        pass

    with pytest.raises(TimeoutCancelation):
        async with Cancelable() as operation, operation.shield(0):
            await checkpoint()


async def test_errors_of_a_section_that_ran_out_of_time_go_on() -> None:
    """
    What goes wrong while a section is interrupted is not hidden by that.
    """
    with pytest.raises(ZeroDivisionError):
        async with Cancelable() as operation, operation.shield(1):
            try:
                await sleep_forever()
            finally:
                raise ZeroDivisionError


async def test_a_shield_that_ran_out_of_time_in_a_cancelled_operation() -> None:
    """
    The block may handle the error; it is cancelled at its next checkpoint all the same.
    """
    with pytest.raises(ManualCancelation):
        async with Cancelable() as operation:
            operation.cancel()
            with pytest.raises(TimeoutCancelation):
                async with operation.shield(1):
                    await sleep_forever()
            await checkpoint()


@pytest.mark.parametrize("budget", [-1, nan])
def test_an_impossible_budget_is_refused(budget: float) -> None:
    """
    As with timeouts.
    """
    with pytest.raises(ValueError, match="timeout must not be negative or NaN"):
        Cancelable().shield(budget)


@pytest.mark.parametrize("budget", ["1", True])
def test_a_budget_must_be_a_time(budget: Any) -> None:
    """
    As with timeouts.
    """
    with pytest.raises(TypeError, match="timeout must be a number of seconds"):
        Cancelable().shield(budget)


async def test_sections_can_be_nested() -> None:
    """
    The operation is shielded until the outermost of them ends.
    """
    statuses: list[OperationStatus] = []

    async with Cancelable() as operation:
        async with operation.shield():
            async with operation.shield():
                statuses.append(operation.status)
            statuses.append(operation.status)
        statuses.append(operation.status)

    assert statuses == [OperationStatus.SHIELDED, OperationStatus.SHIELDED, OperationStatus.RUNNING]


async def test_several_tasks_may_be_shielded_at_once() -> None:
    """
    Each section protects its own task only.
    """
    ended: list[str] = []

    async def work(operation: Cancelable, seconds: int) -> None:
        async with operation.shield():
            await sleep(seconds)
            ended.append(str(seconds))

    async def unprotected() -> None:
        try:
            await sleep_forever()
        finally:
            ended.append("unprotected")

    with pytest.raises(ManualCancelation):
        async with Cancelable() as operation, create_task_group() as group:
            group.start_soon(work, operation, 2)
            group.start_soon(work, operation, 1)
            group.start_soon(unprotected)
            await wait_all_tasks_blocked()
            operation.cancel()

            assert operation.status is OperationStatus.SHIELDED

    assert ended == ["unprotected", "1", "2"]


async def test_a_section_needs_a_running_operation() -> None:
    """
    Before and after the block there is nothing to protect, and no scope to protect it from.
    """
    operation = Cancelable()

    with pytest.raises(LifecycleError, match="pending cannot become shielded"):
        async with operation.shield():
            pytest.fail("the section was entered")

    async with operation:
        pass

    with pytest.raises(LifecycleError, match="completed cannot become shielded"):
        async with operation.shield():
            pytest.fail("the section was entered")

    with CancelScope() as scope:
        scope.cancel()
        await checkpoint()
        pytest.fail("a shield was left behind")


@pytest.mark.parametrize("nested", [True, False])
async def test_a_shield_protects_one_section(nested: bool) -> None:
    """
    Entering it again is refused, on both backends, and confuses nobody.
    """
    async with Cancelable() as operation:
        shield = operation.shield()
        if nested:
            async with shield:
                with pytest.raises(LifecycleError):
                    async with shield:
                        pytest.fail("the section was entered")

                assert operation.status is OperationStatus.SHIELDED
        else:
            async with shield:
                pass
            with pytest.raises(LifecycleError):
                async with shield:
                    pytest.fail("the section was entered")

        assert operation.status is OperationStatus.RUNNING


async def test_a_section_may_outlive_the_block() -> None:
    """
    A task that is started elsewhere goes on when the operation has ended.
    """
    ended = False

    async def work(operation: Cancelable) -> None:
        nonlocal ended
        async with operation.shield():
            await sleep(1)
        ended = True

    async with create_task_group() as group:
        async with Cancelable() as operation:
            group.start_soon(work, operation)
            await wait_all_tasks_blocked()

            assert operation.status is OperationStatus.SHIELDED

        assert operation.status is OperationStatus.COMPLETED

    assert ended
    assert operation.status is OperationStatus.COMPLETED
