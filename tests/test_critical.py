"""Critical sections: not begun, or run to their end; and nothing in between."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio import CancelScope, create_task_group, move_on_after, sleep, sleep_forever, wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from hother.cancelable import (
    Cancelable,
    CancelationError,
    LifecycleError,
    ManualCancelation,
    OperationStatus,
    TimeoutCancelation,
    current_operation,
)

from .sweep import cancelling_at, every_checkpoint

HOUR = 3600.0


class Account:
    """Money that is taken here and given there, with a wait in between."""

    def __init__(self) -> None:
        self.begun = 0
        self.done = 0

    async def transfer(self, seconds: float = 3) -> str:
        self.begun += 1
        for _ in range(3):
            await sleep(seconds / 3)
        self.done += 1
        return f"transfer {self.done}"


async def after(seconds: float, function: Callable[[], object]) -> None:
    await sleep(seconds)
    function()


async def test_a_section_that_nobody_disturbs_returns_what_its_function_returns() -> None:
    """
    In a task of its own, which knows the operation.
    """

    async def work(a: int, b: str) -> tuple[int, str, Any, Any]:
        assert operation.status is OperationStatus.SHIELDED
        return a, b, current_operation(), anyio.get_current_task().id

    async with Cancelable() as operation:
        *values, task = await operation.critical(work, 1, "b")

        assert values == [1, "b", operation]
        assert task != anyio.get_current_task().id
        assert operation.status is OperationStatus.RUNNING


async def test_an_error_of_a_section_is_its_own() -> None:
    """
    Not put into a group, and not mixed up with what is around it.
    """

    async def fail() -> None:
        await sleep(1)
        raise ZeroDivisionError

    async with Cancelable() as operation:
        with pytest.raises(ZeroDivisionError):
            await operation.critical(fail)
        await checkpoint()

        assert operation.status is OperationStatus.RUNNING


async def test_what_is_no_exception_passes_through_a_section_as_it_is() -> None:
    """
    Nobody catches Ctrl-C, or a failed assertion of pytest's, by looking into groups.
    """

    class Urgent(BaseException):
        pass

    urgent = Urgent()
    urgent.__cause__ = cause = ValueError()

    async def work() -> None:
        raise urgent

    with pytest.raises(Urgent) as raised:
        async with Cancelable() as operation:
            await operation.critical(work)

    assert raised.value is urgent
    assert urgent.__cause__ is cause
    assert operation.status is OperationStatus.FAILED


async def test_after_its_end_an_operation_begins_no_section_even_if_another_one_goes_on() -> None:
    """
    A shielded section may outlive the block in a task of its own: nothing new begins there.
    """
    has_ended = anyio.Event()
    account = Account()

    async def outlive(operation: Cancelable) -> None:
        async with operation.shield():
            await has_ended.wait()
            with pytest.raises(LifecycleError, match="completed"):
                await operation.critical(account.transfer)
            with pytest.raises(LifecycleError, match="completed"):
                async with operation.shield():
                    account.begun += 1

    async with create_task_group() as group:
        async with Cancelable() as operation:
            group.start_soon(outlive, operation)
            await wait_all_tasks_blocked()
        has_ended.set()

    assert account.begun == 0
    assert operation.status is OperationStatus.COMPLETED


@pytest.mark.parametrize("how", ["operation", "deadline", "scope"])
async def test_a_cancelation_in_a_section_waits_for_its_end(how: str) -> None:
    """
    And for what it returns to be handed over; it strikes at the first checkpoint after it.
    """
    account = Account()
    steps: list[str] = []

    operation = Cancelable(timeout=1 if how == "deadline" else None, raise_on_cancel=False)

    async with create_task_group() as tasks:
        with CancelScope() as scope:
            cancels: dict[str, Callable[[], object]] = {"operation": operation.cancel, "scope": scope.cancel}
            tasks.start_soon(after, 0.5, cancels.get(how, lambda: None))
            async with operation:
                steps.append(await operation.critical(account.transfer))
                await checkpoint()
                steps.append("after the checkpoint")

    assert steps == ["transfer 1"]
    assert operation.status is OperationStatus.CANCELLED


async def test_a_section_is_not_begun_if_it_is_too_late() -> None:
    """
    Whatever was cancelled: the operation, in its grace period as well, or something around it.
    """
    account = Account()

    for grace in (0, HOUR):
        with pytest.raises(ManualCancelation):
            async with Cancelable(grace=grace) as operation:
                operation.cancel()
                await operation.critical(account.transfer)

        assert operation.status is OperationStatus.CANCELLED

    with CancelScope() as scope:
        async with Cancelable() as operation:
            scope.cancel()
            await operation.critical(account.transfer)

    assert scope.cancelled_caught
    assert account.begun == 0


@pytest.mark.parametrize("what", ["operation", "scope", "outer"])
async def test_a_cancelation_anywhere_is_before_the_section_or_after_it(what: str) -> None:
    """
    At every checkpoint of entering it, being in it, and leaving it.
    """

    async def attempt(number: int) -> int:
        account = Account()
        waits = 0
        with CancelScope() as scope:
            async with Cancelable(raise_on_cancel=False) as outer:
                async with Cancelable(raise_on_cancel=False) as operation:
                    cancels: dict[str, Callable[[], object]] = {
                        "operation": operation.cancel,
                        "scope": scope.cancel,
                        "outer": outer.cancel,
                    }
                    await checkpoint()
                    value, waits = await cancelling_at(
                        number, cancels[what], operation.critical(account.transfer)
                    )
                    assert value == "transfer 1"

        assert account.begun == account.done
        assert operation.status is OperationStatus.COMPLETED or not account.begun
        return waits

    numbers = [number async for number in every_checkpoint(attempt)]
    assert len(numbers) > 1


async def test_a_section_is_interrupted_when_its_budget_is_used_up() -> None:
    """
    It is no way to hang for ever; the operation goes on.
    """
    start = anyio.current_time()

    async with Cancelable() as operation:
        with pytest.raises(TimeoutCancelation, match="a critical section used up its 2 seconds"):
            await operation.critical(sleep_forever, timeout=2)
        await checkpoint()

    assert anyio.current_time() - start == 2


async def test_a_section_ends_with_the_clean_up_budget() -> None:
    """
    If it has begun before the operation was cancelled: afterwards it does not begin.
    """
    start = anyio.current_time()

    with pytest.raises(TimeoutCancelation, match="the 3 seconds that its operation has to clean up"):
        async with Cancelable(timeout=1, cleanup_budget=3) as operation:
            await operation.critical(sleep_forever, timeout=50)

    assert anyio.current_time() - start == 4


async def test_a_section_needs_a_running_operation() -> None:
    """
    As a shield does.
    """
    account = Account()
    operation = Cancelable()

    with pytest.raises(LifecycleError, match="pending cannot become shielded"):
        await operation.critical(account.transfer)
    async with operation:
        pass
    with pytest.raises(LifecycleError, match="completed cannot become shielded"):
        await operation.critical(account.transfer)

    assert account.begun == 0


@pytest.mark.parametrize("interrupted", [True, False])
async def test_the_block_waits_for_sections_in_other_tasks(interrupted: bool) -> None:
    """
    So that nothing of the operation goes on when it is over, not even if what is around it is cancelled.
    """
    account = Account()
    start = anyio.current_time()
    got: list[str] = []

    async def work(operation: Cancelable, seconds: float) -> None:
        got.append(await operation.critical(account.transfer, seconds))

    with CancelScope() as scope:
        async with create_task_group() as tasks:
            async with Cancelable() as operation:
                for seconds in (3, 6):
                    tasks.start_soon(work, operation, seconds)
                await wait_all_tasks_blocked()
                if interrupted:
                    scope.cancel()

            assert account.done == 2
            assert anyio.current_time() - start == 6

    assert operation.status is OperationStatus.COMPLETED
    assert len(got) == 2


# --- asyncio's own cancel


@pytest.mark.only_on("asyncio")
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("at", [0, 1, 2])
async def test_a_native_cancel_waits_for_the_section(at: int, times: int) -> None:
    """
    Servers cancel tasks like that at shutdown. It goes on when the section is over, once.
    """
    account = Account()
    operation = Cancelable()

    async def work() -> None:
        async with operation:
            await operation.critical(account.transfer)
            pytest.fail("the native cancel was lost")

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    for _ in range(times):
        task.cancel("shutdown")
        await asyncio.sleep(at / 2)
    with pytest.raises(asyncio.CancelledError):
        await task

    assert task.cancelled()
    assert account.begun == account.done
    assert operation.status is OperationStatus.CANCELLED
    if sys.version_info >= (3, 11):  # pragma: no branch
        assert task.cancelling() == times


@pytest.mark.only_on("asyncio")
async def test_a_native_cancel_in_the_same_tick_does_not_tear_a_section() -> None:
    """
    The task asks for its own end, and then begins: it is run to its end before that comes.
    """
    account = Account()

    async def work() -> None:
        async with Cancelable() as operation:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await operation.critical(account.transfer)

    task = asyncio.ensure_future(work())
    with pytest.raises(asyncio.CancelledError):
        await task

    assert account.begun == account.done == 1


@pytest.mark.only_on("asyncio")
async def test_a_native_cancel_while_the_block_waits_for_sections_goes_on_after_them() -> None:
    """
    Also if the block ended with an error.
    """
    account = Account()
    operation = Cancelable()

    async def block() -> None:
        async with operation:
            await asyncio.sleep(1)
            raise ZeroDivisionError

    async def section() -> None:
        await operation.critical(account.transfer)

    main = asyncio.ensure_future(block())
    await asyncio.sleep(0)
    other = asyncio.ensure_future(section())
    await asyncio.sleep(2)
    main.cancel()
    with pytest.raises(asyncio.CancelledError):
        await main

    assert account.done == 1
    assert operation.status is OperationStatus.CANCELLED
    await other


@pytest.mark.only_on("asyncio")
async def test_a_section_whose_own_task_is_cancelled_is_an_error() -> None:
    """
    Who cancels every task there is finds that one, too: it has no value then.
    """

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await sleep(1)

    async with Cancelable() as operation:
        with pytest.raises(CancelationError, match="the task of a critical section was cancelled"):
            await operation.critical(work)
        await checkpoint()


@pytest.mark.only_on("asyncio")
async def test_an_error_of_a_section_is_not_lost_in_a_native_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The cancel goes on; the error is reported.
    """
    reported: list[BaseException] = []
    monkeypatch.setattr("sys.excepthook", lambda _type, error, _traceback: reported.append(error))

    async def fail() -> None:
        await sleep(1)
        raise ZeroDivisionError

    async def work() -> None:
        async with Cancelable() as operation:
            await operation.critical(fail)

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert [type(error) for error in reported] == [ZeroDivisionError]


# --- call_soon


@pytest.mark.real_time
async def test_a_thread_has_a_function_called_in_the_loop() -> None:
    """
    In its thread, between the steps of its tasks, although it is idle.
    """
    called: list[tuple[str, int]] = []
    done = anyio.Event()
    start = anyio.current_time()

    def call(name: str) -> None:
        called.append((name, threading.get_ident()))
        done.set()

    with anyio.fail_after(5):
        async with Cancelable() as operation:
            threading.Timer(0.05, operation.call_soon, [call, "it"]).start()
            await done.wait()

    assert called == [("it", threading.get_ident())]
    assert anyio.current_time() - start < 2


async def test_a_function_is_not_called_when_the_block_is_over() -> None:
    """
    Whether it is too late when it is asked for, or when the loop gets to it.
    """
    called: list[int] = []
    operation = Cancelable()

    with pytest.raises(LifecycleError, match="an operation that is pending has no event loop yet"):
        operation.call_soon(called.append, 0)

    async with operation:
        assert operation.call_soon(called.append, 1)
        await sleep(1)
        assert called == [1]

        assert operation.call_soon(called.append, 2)
    await sleep(1)

    assert not operation.call_soon(called.append, 3)
    await sleep(1)
    assert called == [1]


async def test_an_error_of_such_a_function_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It belongs to no task, and must break neither the operation nor the loop.
    """
    reported: list[BaseException] = []
    monkeypatch.setattr("sys.excepthook", lambda _type, error, _traceback: reported.append(error))

    async with Cancelable() as operation:
        operation.call_soon(lambda: 1 / 0)
        await sleep(1)

    assert [type(error) for error in reported] == [ZeroDivisionError]


# --- Detached


async def test_a_detached_operation_knows_the_other_one_and_is_not_cancelled_with_it() -> None:
    """
    In the same task and in others; it has name, metadata and observers, unless it is given its own.
    """
    steps: list[str] = []

    async def work(operation: Cancelable) -> None:
        async with operation.detached(timeout=10, name="receipt") as detached:
            assert current_operation() is detached
            await sleep(3)
            detached.check()
            steps.append(f"{detached.name} of {detached.context.parent_id}")

    with move_on_after(2):
        async with create_task_group() as tasks:
            async with Cancelable(timeout=1, name="order", metadata={"n": 1}, operation_id="1") as operation:
                tasks.start_soon(work, operation)
                async with operation.detached() as detached:
                    await sleep(5)
                    steps.append("same task")
                    assert detached.name == "order"
                    assert detached.metadata == {"n": 1}
                    assert detached.metadata is not operation.metadata
                assert current_operation() is operation
                await checkpoint()

    assert steps == ["receipt of 1", "same task"]
    assert operation.status is OperationStatus.CANCELLED
    assert detached.status is OperationStatus.COMPLETED


async def test_a_detached_operation_has_its_own_end() -> None:
    """
    Its timeout, its tokens, and whoever cancels it.
    """
    start = anyio.current_time()
    async with Cancelable() as operation:
        with pytest.raises(TimeoutCancelation):
            async with operation.detached(timeout=2):
                await sleep_forever()
        with pytest.raises(ManualCancelation):
            async with operation.detached() as detached:
                detached.cancel()
                await checkpoint()

    assert anyio.current_time() - start == 2
    assert operation.status is OperationStatus.COMPLETED
