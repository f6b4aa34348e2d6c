"""Work of an operation in worker threads, and functions bound to an operation."""

from __future__ import annotations

import threading
import time
from contextvars import ContextVar
from inspect import iscoroutinefunction
from typing import Any

import anyio
import pytest
from anyio import create_task_group, from_thread, sleep, sleep_forever, wait_all_tasks_blocked

from hother.cancelable import (
    Cancelable,
    CancelationError,
    CancelationReason,
    CancelationToken,
    LifecycleError,
    ManualCancelation,
    OperationStatus,
    TimeoutCancelation,
    current_operation,
)
from hother.cancelable.testing import sweep

number: ContextVar[int] = ContextVar("number")


def check_until_told_to_stop() -> None:
    for _ in range(1000):
        operation = current_operation()
        assert operation is not None
        operation.check()
        time.sleep(0.005)
    raise AssertionError("nobody stopped the thread")


# --- Threads


@pytest.mark.real_time
async def test_a_function_runs_in_a_thread_with_its_arguments() -> None:
    """
    By position and by name, and its value comes back.
    """

    def function(*args: int, **kwargs: int) -> tuple[Any, ...]:
        return threading.get_ident(), args, kwargs

    async with Cancelable() as operation:
        thread, *rest = await operation.run_in_thread(function, 1, 2, function=3)

    assert thread != threading.get_ident()
    assert rest == [(1, 2), {"function": 3}]
    assert operation.status is OperationStatus.COMPLETED


@pytest.mark.real_time
async def test_the_context_and_the_current_operation_are_kept_in_the_thread() -> None:
    """
    What the caller set can be read there; what the thread sets stays there.
    """

    def function() -> Any:
        seen = number.get(), current_operation()
        number.set(2)
        return seen

    number.set(1)
    async with Cancelable() as outer, Cancelable() as inner:
        assert await inner.run_in_thread(function) == (1, inner)
        assert await outer.run_in_thread(function) == (1, inner)

    assert number.get() == 1


@pytest.mark.real_time
async def test_what_a_thread_raises_comes_back() -> None:
    """
    As the error that it is.
    """

    def function() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with Cancelable() as operation:
            await operation.run_in_thread(function)

    assert operation.status is OperationStatus.FAILED


@pytest.mark.real_time
async def test_a_thread_that_asks_is_told_to_stop() -> None:
    """
    ``current_operation().check()`` raises there, and the operation ends as cancelled.
    """
    with pytest.raises(TimeoutCancelation):
        async with Cancelable(timeout=0.05) as operation:
            await operation.run_in_thread(check_until_told_to_stop)

    assert operation.status is OperationStatus.CANCELLED


@pytest.mark.real_time
@pytest.mark.parametrize("kind", ["timeout", "token"])
async def test_a_thread_is_told_when_an_operation_around_its_own_is_cancelled(kind: str) -> None:
    """
    Nothing else would stop it. Both end as cancelled, and the error is the outer one's.
    """
    token = CancelationToken()
    error = TimeoutCancelation if kind == "timeout" else ManualCancelation
    if kind == "token":
        threading.Timer(0.05, token.cancel).start()

    with pytest.raises(error):
        async with Cancelable(timeout=0.05 if kind == "timeout" else 60, tokens=[token]) as outer:
            async with Cancelable() as inner, Cancelable() as innermost:
                await innermost.run_in_thread(check_until_told_to_stop)

    assert outer.status is inner.status is innermost.status is OperationStatus.CANCELLED
    assert inner.cancelation is not None
    assert inner.cancelation.reason is CancelationReason.PARENT


async def test_a_check_in_a_shielded_section_does_not_ask_around() -> None:
    """
    An operation in a shielded section of another one runs to its end; after the section, that is over.
    """
    with pytest.raises(ManualCancelation):
        async with Cancelable() as outer:
            outer.cancel()
            async with outer.shield(), Cancelable() as inner:
                inner.check()
            async with Cancelable() as late:
                late.check()

    assert inner.status is OperationStatus.COMPLETED
    assert late.status is OperationStatus.CANCELLED


@pytest.mark.real_time
async def test_a_thread_is_waited_for() -> None:
    """
    By default nothing is left running when the block is over.
    """
    ended = threading.Event()

    def function() -> None:
        time.sleep(0.1)
        ended.set()

    with pytest.raises(TimeoutCancelation):
        async with Cancelable(timeout=0.01) as operation:
            await operation.run_in_thread(function)
            await sleep_forever()

    assert ended.is_set()


@pytest.mark.real_time
@pytest.mark.parametrize("in_a_block", [True, False])
async def test_an_abandoned_thread_is_still_told_to_stop(in_a_block: bool) -> None:
    """
    Its operation stays the current one there, even if an operation around it goes on.
    """
    told: list[BaseException | None] = []
    ended = threading.Event()
    left = threading.Event()

    def function() -> None:
        try:
            assert left.wait(5)
            check_until_told_to_stop()
        except BaseException as error:
            told.append(error)
        finally:
            ended.set()

    async with Cancelable() as outer:
        operation = Cancelable(timeout=0.05)
        start = anyio.current_time()
        with pytest.raises(TimeoutCancelation):
            if in_a_block:
                async with operation:
                    await operation.run_in_thread(function, abandon_on_cancel=True)
            else:
                await operation.run_in_thread(function, abandon_on_cancel=True)

        assert anyio.current_time() - start < 1
        left.set()
        assert await anyio.to_thread.run_sync(ended.wait, 5)
        assert current_operation() is outer

    assert [type(error) for error in told] == [TimeoutCancelation]


@pytest.mark.real_time
async def test_a_thread_may_have_operations_of_its_own() -> None:
    """
    In a loop that it starts, and in the loop that it came from.
    """

    async def nested() -> list[object]:
        async with Cancelable(name="nested"):
            return [current_operation()]

    def function(backend: str) -> list[object]:
        return [
            *anyio.run(nested, backend=backend),
            current_operation(),
            *from_thread.run(nested),
            current_operation(),
        ]

    async with Cancelable(name="outer") as operation:
        seen = await operation.run_in_thread(function, "asyncio")

    names = [None if it is None else it.name for it in seen if isinstance(it, (Cancelable, type(None)))]
    assert names == ["nested", "outer", "nested", "outer"]


async def test_a_cancelled_operation_starts_no_thread() -> None:
    """
    It raises before, whether its block was entered or not.
    """
    token = CancelationToken()
    token.cancel()

    with pytest.raises(ManualCancelation):
        await Cancelable.with_token(token).run_in_thread(pytest.fail, "it was called")
    with pytest.raises(ManualCancelation):
        async with Cancelable() as operation:
            operation.cancel()
            await operation.run_in_thread(pytest.fail, "it was called")

    assert operation.status is OperationStatus.CANCELLED


@pytest.mark.real_time
async def test_another_task_may_start_a_thread_for_an_operation() -> None:
    """
    It is interrupted with the operation; cancelling the operation from a thread wakes the loop at once.
    """
    caught: list[CancelationError] = []

    async def work(operation: Cancelable) -> None:
        with pytest.raises(CancelationError) as error:
            await operation.run_in_thread(check_until_told_to_stop)
        caught.append(error.value)

    start = anyio.current_time()
    operation = Cancelable(name="shared")
    async with create_task_group() as group:
        group.start_soon(work, operation)
        threading.Timer(0.05, operation.cancel, [CancelationReason.SHUTDOWN]).start()

    assert anyio.current_time() - start < 1
    assert [error.reason for error in caught] == [CancelationReason.SHUTDOWN]


@pytest.mark.real_time
async def test_a_cancelation_at_any_checkpoint_of_a_thread_leaves_nothing() -> None:
    """
    Wherever it strikes, no callback stays behind.
    """
    token = CancelationToken()

    async def work() -> None:
        await Cancelable.with_token(token).run_in_thread(time.sleep, 0.001)

    def check() -> None:
        assert token.statistics().callbacks == 0

    assert len(await sweep(work, check=check)) > 1


# --- wrap


async def test_a_wrapped_function_runs_in_the_block() -> None:
    """
    It is called with its arguments, and stays the coroutine function it was.
    """

    async def add(a: int, *, b: int) -> tuple[int, Cancelable | None]:
        """Add."""
        return a + b, current_operation()

    async with Cancelable() as operation:
        wrapped = operation.wrap(add)

        assert await wrapped(1, b=2) == (3, operation)

    assert iscoroutinefunction(wrapped)
    assert (wrapped.__name__, wrapped.__doc__) == ("add", "Add.")


async def test_a_wrapped_function_checks_first() -> None:
    """
    A cancelled operation does not begin anything, even if that would not wait.
    """

    async def work() -> None:
        pytest.fail("it was called")

    with pytest.raises(ManualCancelation):
        async with Cancelable() as operation:
            operation.cancel()
            await operation.wrap(work)()

    assert operation.status is OperationStatus.CANCELLED


@pytest.mark.parametrize("entered", [True, False])
async def test_a_wrapped_function_is_interrupted_elsewhere(entered: bool) -> None:
    """
    Also in a task that was started before, and if the operation is never entered.
    """
    operation = Cancelable(timeout=10)
    start = anyio.current_time()

    async def work() -> None:
        with pytest.raises(ManualCancelation):
            await operation.wrap(sleep_forever)()

    async with create_task_group() as group:
        group.start_soon(work)
        if entered:
            with pytest.raises(ManualCancelation):
                async with operation:
                    await sleep(1)
                    operation.cancel()
                    await sleep_forever()
        else:
            await wait_all_tasks_blocked()
            await sleep(1)
            operation.cancel()

    assert anyio.current_time() - start == 1
    assert operation.token.statistics().callbacks == 0


async def test_an_operation_that_has_ended_takes_up_no_more_work() -> None:
    """
    Neither functions nor threads: nobody would stop them.
    """
    async with Cancelable() as operation:
        pass

    with pytest.raises(LifecycleError, match="completed takes up no more work"):
        await operation.wrap(sleep_forever)()
    with pytest.raises(LifecycleError, match="completed takes up no more work"):
        await operation.run_in_thread(pytest.fail, "it was called")
