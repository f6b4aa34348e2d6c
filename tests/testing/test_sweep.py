"""The sweep: it finds every place where code waits, and what is wrong there."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import anyio
import pytest
from anyio import CancelScope, create_task_group, get_cancelled_exc_class, sleep
from anyio.abc import TaskGroup
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

from hother.cancelable import Cancelable, CancelationToken, ManualCancelation, current_operation
from hother.cancelable.testing import Checkpoint, Interruption, SweepError, sweep

CANCELATIONS: list[Interruption] = ["scope", "operation"]


def lines(checkpoints: list[Checkpoint]) -> list[str | None]:
    """The lines of this file on which the function stood."""
    return [[frame.line for frame in it.stack if frame.filename == __file__][-1] for it in checkpoints]


async def test_each_wait_is_interrupted_once_in_order() -> None:
    """
    Whatever really waits counts, if only for its turn; what has its answer at once does not.
    """
    ready = anyio.Event()
    ready.set()

    async def numbers() -> AsyncIterator[int]:
        await sleep(3)
        yield 1

    async def work() -> None:
        await checkpoint()
        await sleep(1)
        await cancel_shielded_checkpoint()
        async for _ in numbers():
            pass

    checkpoints = await sweep(work, how="scope")

    assert [it.number for it in checkpoints] == [1, 2, 3, 4]
    assert lines(checkpoints) == [
        "await checkpoint()",
        "await sleep(1)",
        "await cancel_shielded_checkpoint()",
        "await sleep(3)",
    ]
    assert not any(it.in_child for it in checkpoints)


async def test_a_run_that_is_interrupted_gets_no_further() -> None:
    """
    The sweep ends with the run that gets through.
    """
    reached: list[int] = []

    async def work() -> None:
        for number in range(3):
            await sleep(1)
            reached.append(number)

    await sweep(work, how="scope")

    assert reached == [0, 0, 1, 0, 1, 2]


async def test_all_cancelations_of_the_backend_are_tried(anyio_backend_name: str) -> None:
    """
    If nothing else is asked for.
    """
    checkpoints = await sweep(lambda: sleep(1))

    tried = ["scope", "operation", "native"] if anyio_backend_name == "asyncio" else ["scope", "operation"]
    assert [it.how for it in checkpoints] == tried


async def test_tasks_that_the_function_starts_are_swept_too() -> None:
    """
    And those that they start: the cancelation strikes while one of them begins to wait.
    """
    begun: list[str] = []

    async def child(name: str) -> None:
        begun.append(name)
        await sleep(1)
        if name == "child":
            async with create_task_group() as tasks:
                tasks.start_soon(child, "grandchild")

    async def work() -> None:
        begun.clear()
        async with create_task_group() as tasks:
            tasks.start_soon(child, "child")

    checkpoints = await sweep(work, how="scope")

    assert "grandchild" in begun
    in_children = [it for it in checkpoints if it.in_child]
    assert lines(in_children).count("await sleep(1)") == 2
    assert len(in_children) < len(checkpoints)


async def test_tasks_that_others_started_are_left_alone() -> None:
    """
    What they wait for does not count, and nothing interrupts them.
    """
    ticks: list[int] = []

    async def tick() -> None:
        for number in range(10):
            await sleep(0.3)
            ticks.append(number)

    async def tick_later() -> None:
        await sleep(0.5)
        tasks.start_soon(tick)

    async with create_task_group() as tasks:
        tasks.start_soon(tick)
        tasks.start_soon(tick_later)
        checkpoints = await sweep(lambda: sleep(1), how="scope")

    assert len(checkpoints) == 1
    assert len(ticks) == 20


async def test_sweeps_may_run_side_by_side() -> None:
    """
    Each sees its own.
    """
    found: list[int] = []

    async def work() -> None:
        async with create_task_group() as tasks:
            tasks.start_soon(sleep, 1)

    async def run() -> None:
        found.append(len(await sweep(work, how="scope")))

    async with create_task_group() as tasks:
        tasks.start_soon(run)
        tasks.start_soon(run)

    assert found == [2, 2]


@pytest.mark.only_on("asyncio")
async def test_a_task_factory_of_the_program_goes_on_making_the_other_tasks() -> None:
    """
    And it is in place again after the sweep.
    """
    import asyncio

    made: list[str] = []

    def factory(loop: Any, work: Any, **options: Any) -> Any:
        made.append(work.__qualname__)
        return asyncio.Task(work, loop=loop, **options)

    async def work() -> None:
        async with create_task_group() as tasks:
            tasks.start_soon(sleep, 1)

    async def other() -> None:
        pass

    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)
    try:
        async with create_task_group() as tasks:
            tasks.start_soon(partial(sweep, work, how="scope"))
            await sleep(0.5)
            assert loop.get_task_factory() is not factory
            made.clear()
            await asyncio.create_task(other())
        assert loop.get_task_factory() is factory
    finally:
        loop.set_task_factory(None)

    assert made[0].endswith("other")


@pytest.mark.parametrize("how", CANCELATIONS)
async def test_a_shielded_section_is_not_interrupted_but_what_follows(how: Interruption) -> None:
    """
    Also where Trio cannot abort the wait, as in a thread.
    """
    ended: list[str] = []

    async def work() -> None:
        with CancelScope(shield=True):
            await sleep(1)
        ended.append("section")
        await sleep(1)
        ended.append("work")

    await sweep(work, how=how)

    assert ended == ["section", "section", "section", "work"]


async def test_a_function_that_swallows_the_cancelation_is_reported() -> None:
    """
    It says where it was interrupted.
    """

    async def greedy() -> None:
        try:
            await sleep(1)
        except get_cancelled_exc_class():
            pass

    with pytest.raises(SweepError, match="greedy swallowed the cancelation") as failure:
        await sweep(greedy)

    assert failure.value.checkpoint is not None
    assert failure.value.checkpoint.number == 1
    assert "A scope around it was cancelled at checkpoint 1, as it waited here:" in str(failure.value)
    assert "await sleep(1)" in str(failure.value)


@pytest.mark.only_on("asyncio")
async def test_a_function_that_swallows_a_native_cancelation_is_reported() -> None:
    """
    Each way is judged for itself.
    """

    async def greedy() -> None:
        try:
            await sleep(1)
        except get_cancelled_exc_class() as error:
            if "scope" in str(error):
                raise

    with pytest.raises(SweepError, match="Its task was cancelled"):
        await sweep(greedy)


async def test_a_function_that_ends_before_the_cancelation_gets_to_it_is_fine() -> None:
    """
    That is no swallowing; nor is the end of a timeout of its own.
    """

    async def work() -> None:
        with CancelScope(shield=True):
            with anyio.move_on_after(1):
                await sleep(60)

    assert await sweep(work, how=CANCELATIONS)


async def test_an_error_in_place_of_the_cancelation_is_reported() -> None:
    """
    Unless it is expected.
    """

    async def work() -> None:
        try:
            await sleep(1)
        except get_cancelled_exc_class():
            raise KeyError("cleanup") from None

    with pytest.raises(SweepError, match=r"was interrupted, and raised KeyError\('cleanup'\)") as failure:
        await sweep(work, how="scope")

    assert isinstance(failure.value.__cause__, KeyError)
    assert len(await sweep(work, how="scope", raises=KeyError)) == 1


async def test_an_error_without_any_interruption_is_reported_as_such() -> None:
    """
    Nobody should look for it among the cancelations.
    """

    async def work() -> None:
        raise KeyError("always")

    with pytest.raises(
        SweepError, match=r"work raised KeyError\('always'\)\nIt was not interrupted\."
    ) as failure:
        await sweep(work)

    assert failure.value.checkpoint is None


async def test_errors_in_groups_are_judged_one_by_one() -> None:
    """
    A task group puts them there.
    """

    async def fail(error: Exception) -> None:
        try:
            await sleep(1)
        finally:
            raise error

    async def work() -> None:
        async with create_task_group() as tasks:
            tasks.start_soon(fail, KeyError())
            tasks.start_soon(fail, ValueError())

    assert await sweep(work, how="scope", raises=(KeyError, ValueError))
    with pytest.raises(SweepError):
        await sweep(work, how="scope", raises=KeyError)


async def test_a_check_is_made_after_each_run() -> None:
    """
    It may be async; and the message tells where the run was interrupted.
    """
    balance = [10, 0]

    async def transfer() -> None:
        balance[:] = [10, 0]
        balance[0] -= 5
        await sleep(1)
        balance[1] += 5

    async def check() -> None:
        await checkpoint()
        assert sum(balance) == 10, "money was lost"

    with pytest.raises(SweepError, match=r"after .*transfer, the check failed: .*money was lost") as failure:
        await sweep(transfer, check=check)

    assert "await sleep(1)" in str(failure.value)


async def test_a_task_that_is_left_behind_is_reported() -> None:
    """
    With the place where it waits.
    """

    async def work(elsewhere: TaskGroup) -> None:
        elsewhere.start_soon(sleep, 5)
        await sleep(1)

    async with create_task_group() as elsewhere:
        with pytest.raises(SweepError, match=r"left behind the task .*sleep, which waits here:") as failure:
            await sweep(lambda: work(elsewhere))
        assert ", in sleep" in str(failure.value)
        elsewhere.cancel_scope.cancel()


async def test_a_task_that_is_about_to_end_is_not_left_behind() -> None:
    """
    It gets the time to do so.
    """

    async def work(elsewhere: TaskGroup) -> None:
        elsewhere.start_soon(checkpoint)

    async with create_task_group() as elsewhere:
        await sweep(lambda: work(elsewhere))


async def test_a_block_that_is_not_left_is_reported() -> None:
    """
    By its name; and so is the current operation that it leaves.
    """
    operations: list[Cancelable] = []

    async def work(_: object = None) -> None:
        operations.append(Cancelable(name="forgotten"))
        operations[-1]._become(operations[-1].status.RUNNING)

    with pytest.raises(
        SweepError, match="work left behind the operation forgotten, whose block was not left"
    ):
        await sweep(partial(work, 1))

    async def leak_context() -> None:
        from hother.cancelable._block import _current

        async with Cancelable() as operation:
            operations.append(operation)
            blocks = _current.get()
        operation._block._closed = None  # type: ignore[union-attr]
        operation._block._owner = operation  # type: ignore[union-attr]
        _current.set(blocks)

    with pytest.raises(
        SweepError, match="left behind a block among the current ones; the current operation is <Cancelable"
    ):
        await sweep(leak_context)


@pytest.mark.parametrize("how", CANCELATIONS)
async def test_a_function_that_never_ends_is_given_up(how: Interruption) -> None:
    """
    One that swallows every cancelation, and one that has no last checkpoint.
    """

    async def stubborn() -> None:
        while True:
            try:
                await sleep(1)
            except get_cancelled_exc_class():
                pass

    async def endless() -> None:
        while True:  # noqa: ASYNC110
            await sleep(1)

    with pytest.raises(SweepError, match="stubborn goes on for ever after it was interrupted"):
        await sweep(stubborn, how=how)
    with pytest.raises(SweepError, match="endless has more than 20 checkpoints"):
        await sweep(endless, how=how, limit=20)


async def test_a_wait_may_fail() -> None:
    """
    What waits in the function's own task, and can fail at all, raises the error.
    """
    met: list[str] = []

    async def work() -> None:
        await checkpoint()  # waits for its turn only
        try:
            await sleep(1)
        except OSError as error:
            met.append(type(error).__name__)
        await sleep(2)

    checkpoints = await sweep(work, how="error", error=ConnectionError)

    assert met == ["ConnectionError"]
    assert lines(checkpoints) == ["await sleep(1)", "await sleep(2)"]
    assert checkpoints[0].how == "error"
    assert "An error was raised at checkpoint 1" in str(checkpoints[0])


async def test_the_wait_of_a_task_group_for_its_tasks_does_not_fail() -> None:
    """
    It never does, and what would become of the tasks?
    """

    async def work() -> None:
        async with create_task_group() as tasks:
            tasks.start_soon(sleep, 2)
            await sleep(1)

    assert lines(await sweep(work, how="error")) == ["await sleep(1)"]


async def test_an_error_that_passes_through_is_what_was_asked_for() -> None:
    """
    Another one is not.
    """

    async def work() -> None:
        await sleep(1)

    async def translate() -> None:
        try:
            await sleep(1)
        except OSError as error:
            raise KeyError from error

    assert len(await sweep(work, how="error")) == 1
    with pytest.raises(SweepError, match="raised KeyError"):
        await sweep(translate, how="error")


@pytest.mark.only_on("trio")
async def test_a_wait_that_cannot_be_called_off_may_fail_later() -> None:
    """
    As Trio has it: what cannot be aborted is asked once, and may raise the error when it is done.
    """
    import outcome
    from trio.lowlevel import Abort, current_task, reschedule, wait_task_rescheduled

    asked: list[str] = []

    runs = 0

    async def work() -> None:
        nonlocal runs
        runs += 1
        task = current_task()

        raised_by: list[Any] = []

        async def finish() -> None:
            await sleep(2)
            reschedule(task, outcome.capture(raised_by[0]))

        def abort(raise_error: Any) -> Abort:
            asked.append("abort")
            raised_by.append(raise_error)
            return Abort.FAILED

        async with create_task_group() as tasks:
            tasks.start_soon(finish)
            with anyio.move_on_after(1):
                await wait_task_rescheduled(abort)

    checkpoints = await sweep(work, how="error")

    assert len(asked) == runs  # once in each
    assert "await wait_task_rescheduled(abort)" not in lines(checkpoints)


async def test_another_way_to_cancel() -> None:
    """
    The function's own token, say; what the function raises then has to be expected.
    """
    token = CancelationToken()

    async def work() -> None:
        nonlocal token
        token = CancelationToken()
        async with Cancelable.with_token(token):
            await sleep(1)
            await sleep(1)

    checkpoints = await sweep(work, cancel=lambda: token.cancel(), raises=ManualCancelation)

    assert [it.how for it in checkpoints] == [None, None]
    assert str(checkpoints[0]).startswith("It was cancelled at checkpoint 1")


async def test_a_way_to_cancel_that_fails_is_reported() -> None:
    """
    Rather than thrown into the event loop.
    """

    def cancel() -> None:
        raise KeyError("no such token")

    with pytest.raises(SweepError, match=r"cancelling .* raised KeyError\('no such token'\)"):
        await sweep(lambda: sleep(1), cancel=cancel)


async def test_any_awaitable_will_do() -> None:
    """
    A function need not be a coroutine function.
    """

    class Later:
        def __await__(self) -> Any:
            return sleep(1).__await__()

    assert len(await sweep(Later, how="scope")) == 1


async def test_the_operation_around_the_function_is_current_in_it() -> None:
    """
    So that it can be asked.
    """
    names: list[str | None] = []

    async def work() -> None:
        operation = current_operation()
        names.append(None if operation is None else operation.name)
        await sleep(1)
        if operation is not None:
            operation.check()

    await sweep(work, how="operation")

    assert names == ["swept", "swept"]


async def test_an_error_of_another_operation_is_not_that_of_the_sweep() -> None:
    """
    Only the sweep's own cancelation is what was asked for.
    """

    async def work() -> None:
        async with Cancelable() as operation:
            operation.cancel()
            await sleep(1)

    with pytest.raises(SweepError, match="ManualCancelation"):
        await sweep(work, how="operation")


async def test_impossible_ways_are_refused(anyio_backend_name: str) -> None:
    """
    The message tells which there are.
    """
    with pytest.raises(ValueError, match="how must be some of scope, operation, native, error; got 'gently'"):
        await sweep(checkpoint, how=["gently"])  # type: ignore[list-item]
    if anyio_backend_name == "trio":
        with pytest.raises(ValueError, match="not for Trio"):
            await sweep(checkpoint, how="native")


async def test_a_sweep_can_be_cancelled_itself() -> None:
    """
    A timeout of the test ends it.
    """

    async def work() -> None:
        await sleep(10)

    with anyio.move_on_after(5) as scope:
        await sweep(work)

    assert scope.cancelled_caught


async def test_the_stack_of_a_generator_based_coroutine_is_known() -> None:
    """
    Whatever can be awaited may be on the way.
    """
    from types import coroutine

    @coroutine
    def old_style() -> Any:
        return (yield from sleep(1).__await__())

    checkpoints = await sweep(old_style, how="scope")

    assert re.search("in old_style", str(checkpoints[0]))
