"""Deadlines that are moved while the operation runs, and who hears of them."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from math import inf, nan
from typing import Any

import anyio
import pytest
from anyio import CancelScope, create_task_group, fail_after, sleep, sleep_forever, wait_all_tasks_blocked
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from hother.cancelable import (
    Cancelable,
    CancelationError,
    CancelationReason,
    ManualCancelation,
    OperationStatus,
    ParentCancelation,
    TimeoutCancelation,
    cancelable_stream,
    current_operation,
)

HOUR = 3600.0


async def lasts(operation: Cancelable) -> float:
    """Tell after how many seconds a block is interrupted."""
    start = anyio.current_time()
    with pytest.raises(CancelationError):
        async with operation:
            await sleep_forever()
    return anyio.current_time() - start


# --- One's own deadline


async def test_more_time_moves_the_deadline() -> None:
    """
    Twice is more than once, and the error tells the whole time.
    """
    start = anyio.current_time()

    with pytest.raises(TimeoutCancelation, match="timed out after 15 seconds"):
        async with Cancelable(timeout=10) as operation:
            await sleep(4)

            assert operation.extend(3)
            assert operation.extend(timedelta(seconds=2))
            assert operation.deadline == start + 15
            assert operation.remaining() == 11

            await sleep_forever()

    assert anyio.current_time() - start == 15


@pytest.mark.parametrize("timeout", [1, 5, timedelta(seconds=50)])
async def test_a_deadline_can_be_set_anew(timeout: Any) -> None:
    """
    Sooner or later than it was, counted from now.
    """
    start = anyio.current_time()
    seconds = float(timeout.total_seconds() if isinstance(timeout, timedelta) else timeout)

    with pytest.raises(TimeoutCancelation, match=f"timed out after {seconds + 4:g} seconds"):
        async with Cancelable(timeout=10) as operation:
            await sleep(4)

            assert operation.reschedule(timeout)
            assert operation.remaining() == seconds

            await sleep_forever()

    assert anyio.current_time() - start == seconds + 4


async def test_a_deadline_can_be_lifted() -> None:
    """
    Then there is none, until there is one again; more time for no deadline is none.
    """
    start = anyio.current_time()

    with pytest.raises(TimeoutCancelation):
        async with Cancelable(timeout=10) as operation:
            assert operation.reschedule(None)
            assert operation.deadline == inf
            assert operation.remaining() is None
            assert operation.extend(1)
            assert operation.remaining() is None

            await sleep(HOUR)

            assert operation.reschedule(5)

            await sleep_forever()

    assert anyio.current_time() - start == HOUR + 5


async def test_an_operation_without_a_timeout_can_get_one() -> None:
    """
    And no time at all is over at the next checkpoint.
    """
    with pytest.raises(TimeoutCancelation, match="timed out after 1 seconds"):
        async with Cancelable() as operation:
            await sleep(1)
            operation.reschedule(0)

            assert operation.is_cancelled

            await checkpoint()
            pytest.fail("the checkpoint did not raise")


async def test_the_timeout_can_be_changed_before_the_block_is_entered() -> None:
    """
    It still counts from entering.
    """
    operation = Cancelable(timeout=10)

    assert operation.extend(2)
    assert operation.remaining() == 12
    assert operation.reschedule(3)
    assert operation.extend(1)

    await sleep(HOUR)

    assert await lasts(operation) == 4


async def test_more_time_than_there_is_is_no_deadline() -> None:
    """
    An infinite extension lifts it.
    """
    async with Cancelable(timeout=10) as operation:
        assert operation.extend(inf)
        assert operation.remaining() is None


async def test_a_deadline_that_has_passed_cannot_be_lifted() -> None:
    """
    The answer says so, and the operation stays cancelled; whether its block knows yet or not.
    """
    with pytest.raises(TimeoutCancelation, match="timed out after 5 seconds"):
        async with Cancelable(timeout=5) as operation:
            with CancelScope(shield=True):
                await sleep(5)

            assert not operation.extend(HOUR)
            assert not operation.reschedule(None)
            assert operation.remaining() == 0

            await checkpoint()
            pytest.fail("the checkpoint did not raise")

    assert not operation.reschedule(None)


async def test_the_deadline_of_a_cancelled_or_finished_operation_cannot_be_moved() -> None:
    """
    It is too late, and that is no error: a cancel may come at any time.
    """
    with pytest.raises(ManualCancelation):
        async with Cancelable(timeout=5) as operation:
            operation.cancel()

            assert not operation.extend(1)

            await checkpoint()

    async with Cancelable(timeout=5) as operation:
        pass

    assert not operation.reschedule(1)
    assert operation.remaining() == 5


@pytest.mark.parametrize("timeout", [-1, nan, timedelta(seconds=-1)])
def test_an_impossible_time_is_refused(timeout: Any) -> None:
    """
    As with timeouts.
    """
    with pytest.raises(ValueError, match="must not be negative or NaN"):
        Cancelable(timeout=1).extend(timeout)

    with pytest.raises(ValueError, match="must not be negative or NaN"):
        Cancelable(timeout=1).reschedule(timeout)


MOVES = st.one_of(
    st.tuples(st.just("reschedule"), st.one_of(st.none(), st.integers(1, 9))),
    st.tuples(st.just("extend"), st.integers(1, 9)),
    st.tuples(st.just("cancel"), st.none()),
)
Moves = list[tuple[int, tuple[str, Any]]]


def the_end(moves: Moves, timeout: int | None) -> tuple[float, CancelationReason | None]:
    """When an operation ends that is moved like that, and why."""
    now, deadline = 0, inf if timeout is None else timeout
    for pause, (what, value) in moves:
        now += pause
        if deadline <= now:
            break
        if what == "cancel":
            return now, CancelationReason.MANUAL
        if what == "extend":
            deadline += value
        else:
            deadline = inf if value is None else now + value
    return (inf, None) if deadline == inf else (deadline, CancelationReason.TIMEOUT)


async def move(operation: Cancelable, moves: Moves) -> None:
    for pause, (what, value) in moves:
        await sleep(pause)
        getattr(operation, what)(*(() if what == "cancel" else (value,)))


@given(
    moves=st.lists(st.tuples(st.integers(0, 5), MOVES), max_size=6),
    timeout=st.one_of(st.none(), st.integers(1, 9)),
)
async def test_whatever_is_done_to_a_deadline_the_block_ends_when_the_model_says(
    moves: Moves, timeout: int | None
) -> None:
    """
    Moves and cancels in any order: what comes first ends the block, with its reason, and nothing else counts.
    """
    ends, reason = the_end(moves, timeout)
    operation = Cancelable(timeout=timeout, raise_on_cancel=False)
    child = Cancelable(parent=operation, raise_on_cancel=False)
    follower = operation.follow()
    ended: dict[Cancelable, float] = {}

    async def wait(each: Cancelable) -> None:
        with suppress(CancelationError):
            async with each:
                await sleep(1000)
        ended[each] = anyio.current_time() - start

    start = anyio.current_time()
    async with create_task_group() as tasks:
        for each in (operation, child, follower):
            tasks.start_soon(wait, each)
        await wait_all_tasks_blocked()
        tasks.start_soon(move, operation, moves)

    assert ended == {each: min(ends, 1000) for each in (operation, child, follower)}
    causes = [operation.cancelation, follower.cancelation, child.cancelation]
    assert [cause and cause.root.reason for cause in causes] == [reason] * 3


# --- Those that go by it


async def test_children_and_followers_hear_of_a_deadline_that_was_moved() -> None:
    """
    Sooner or later, in other tasks, and through all generations.
    """
    async with create_task_group() as tasks:
        with pytest.raises(TimeoutCancelation):
            async with Cancelable(timeout=10, name="boss") as boss:
                below = [
                    Cancelable(parent=boss),
                    boss.follow(),
                    Cancelable().combine(boss),
                    Cancelable(parent=boss.follow().follow()),
                ]
                grandchild = Cancelable(parent=below[0])
                ended: list[float] = []

                async def wait(operation: Cancelable) -> None:
                    ended.append(await lasts(operation))

                for operation in (*below[:3], grandchild):
                    tasks.start_soon(wait, operation)
                await wait_all_tasks_blocked()

                for timeout in (50, 5, 20):
                    boss.reschedule(timeout)
                    await sleep(1)

                    assert {operation.remaining() for operation in (boss, *below[:3], grandchild)} == {
                        timeout - 1
                    }

                await sleep_forever()

    assert ended == [22] * 4


async def test_a_childs_own_deadline_holds_whatever_its_parents_is() -> None:
    """
    The earlier one counts, and lifting one's own does not lift the other.
    """
    async with Cancelable(timeout=10) as parent:
        async with Cancelable(timeout=5, parent=parent) as child:
            parent.extend(10)
            assert child.remaining() == 5

            parent.reschedule(3)
            assert child.remaining() == 3

            parent.reschedule(None)
            assert child.remaining() == 5

            parent.reschedule(30)
            child.reschedule(None)
            assert child.remaining() == 30
            assert parent.remaining() == 30


async def test_a_child_hears_when_its_parent_is_entered_after_it() -> None:
    """
    And of what is done to the parent's timeout before.
    """
    parent = Cancelable()

    async def enter() -> None:
        await sleep(2)
        parent.reschedule(3)
        assert child.remaining() is None
        assert await lasts(parent) == 3

    start = anyio.current_time()
    async with create_task_group() as tasks:
        tasks.start_soon(enter)
        with pytest.raises(ParentCancelation):
            async with Cancelable(parent=parent) as child:
                await sleep_forever()

    assert anyio.current_time() - start == 5


async def test_a_follower_of_an_operation_that_was_not_entered_hears_of_its_new_timeout() -> None:
    """
    Its time counts from the follower's own beginning.
    """
    leader = Cancelable(timeout=10)

    start = anyio.current_time()
    with pytest.raises(TimeoutCancelation):
        async with leader.follow() as follower:
            await sleep(1)
            assert follower.remaining() == 9

            leader.extend(5)
            assert follower.remaining() == 14

            await sleep_forever()

    assert anyio.current_time() - start == 15


@pytest.mark.parametrize("own", [True, False])
async def test_streams_hear_of_a_deadline_that_was_moved(own: bool) -> None:
    """
    Between their steps and in the middle of one, be the operation theirs alone or not.
    """

    async def ticks() -> AsyncIterator[int]:
        for number in range(100):
            await sleep(2)
            yield number

    stream = cancelable_stream(ticks(), timeout=5) if own else Cancelable(timeout=5).stream(ticks())
    operation = stream.cancelable
    start = anyio.current_time()

    assert await stream.__anext__() == 0
    operation.extend(5)  # between two steps
    assert [await stream.__anext__() for _ in range(3)] == [1, 2, 3]

    async def later() -> None:
        await sleep(1)
        if own:
            assert operation.reschedule(4)
        else:  # it has not been entered: this is its timeout, and counts from the first step
            assert operation.reschedule(13)

    async with create_task_group() as tasks:
        tasks.start_soon(later)
        with pytest.raises(TimeoutCancelation, match="timed out after 13 seconds"):
            while True:
                await stream.__anext__()

    assert anyio.current_time() - start == 13


async def test_parts_elsewhere_hear_of_a_deadline_that_was_moved() -> None:
    """
    A wrapped function that runs in another task has the time that the operation has.
    """
    operation = Cancelable(timeout=10)
    wrapped = operation.wrap(sleep)
    start = anyio.current_time()

    async def call() -> None:
        with pytest.raises(TimeoutCancelation):
            await wrapped(HOUR)

    async with create_task_group() as tasks:
        tasks.start_soon(call)
        await sleep(1)
        async with operation:
            await sleep(1)
            operation.reschedule(None)
            await sleep(20)
            operation.reschedule(10)
            await sleep(1)

    assert anyio.current_time() - start == 32


async def test_a_parent_that_has_ended_limits_nobody_any_more() -> None:
    """
    Its deadline was for its own block.
    """
    async with Cancelable(timeout=2) as parent:
        pass

    async with Cancelable(parent=parent) as child, parent.follow() as follower:
        assert child.remaining() is None
        assert follower.remaining() == 2


@pytest.mark.parametrize("timeout", [None, 5])
async def test_a_parent_that_ends_in_time_lets_its_running_children_go_on(timeout: float | None) -> None:
    """
    Those in other tasks: from then on they have the time that is their own.
    """
    remaining: list[float | None] = []

    async def work(parent: Cancelable) -> None:
        async with Cancelable(parent=parent, timeout=timeout) as child:
            async with Cancelable(parent=child) as grandchild:
                remaining.append(grandchild.remaining())
                await sleep(4)
                remaining.append(grandchild.remaining())

    async with create_task_group() as group:
        async with Cancelable(timeout=2) as parent:
            group.start_soon(work, parent)
            await sleep(1)

    assert remaining == [2, None if timeout is None else 1]


async def test_a_stream_limits_children_between_its_steps_too() -> None:
    """
    Its operation has not ended, although no block of it is open.
    """

    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2

    stream = cancelable_stream(numbers(), timeout=2)
    await stream.__anext__()
    with pytest.raises(ParentCancelation, match="timed out after 2 seconds"):
        async with Cancelable(parent=stream.cancelable):
            await sleep(3)
    await stream.aclose()


async def test_nothing_of_a_child_stays_with_its_parent() -> None:
    """
    Ten thousand that are over cost nothing when the deadline is moved.
    """
    async with Cancelable(timeout=10) as parent:
        for _ in range(100):
            async with Cancelable(parent=parent), parent.follow():
                pass

        assert parent.__dict__["_followers"] == {}


# --- Those that wait for the token


@pytest.mark.parametrize("early", [True, False])
async def test_who_waits_for_the_token_hears_of_the_deadline_in_time(early: bool) -> None:
    """
    Even if the block cannot react, nobody asks, and the deadline was moved; nothing is left of the timer.
    """
    operation = Cancelable(timeout=5)
    heard: list[float] = []
    start = anyio.current_time()

    async def listen() -> None:
        assert (await operation.token.wait()).reason is CancelationReason.TIMEOUT
        heard.append(anyio.current_time() - start)

    async with create_task_group() as tasks:
        if early:
            tasks.start_soon(listen)
            await wait_all_tasks_blocked()
        with pytest.raises(TimeoutCancelation):
            async with operation:
                tasks.start_soon(listen)
                operation.extend(2)
                with CancelScope(shield=True):
                    await sleep(HOUR)
                await checkpoint()

    assert set(heard) == {7}


async def test_a_timer_that_rings_too_early_rings_again() -> None:
    """
    Clocks of event loops are not as exact as the time that they are asked for.
    """
    heard: list[float] = []
    start = anyio.current_time()

    async with create_task_group():
        with pytest.raises(TimeoutCancelation):
            async with Cancelable(timeout=5) as operation:
                operation.token.add_callback(lambda _: heard.append(anyio.current_time() - start))
                assert operation._block is not None
                assert operation._block._take_timer_back is not None
                operation._block._take_timer_back()
                operation._block._ring()  # in its place
                with CancelScope(shield=True):
                    await sleep(6)
                await checkpoint()

    assert heard == [5]


async def test_an_operation_that_ends_in_time_leaves_no_timer() -> None:
    """
    However long it might have taken.
    """
    start = anyio.current_time()
    for _ in range(10):
        operation = Cancelable(timeout=HOUR)
        operation.token.add_callback(print)
        async with operation:
            pass
    await wait_all_tasks_blocked()

    assert anyio.current_time() == start
    assert operation.status is OperationStatus.COMPLETED


# --- Threads


@pytest.mark.real_time
async def test_a_thread_may_move_the_deadline() -> None:
    """
    It takes effect although the loop is idle, in a worker thread as in any other.
    """
    start = anyio.current_time()

    def work() -> bool:
        operation = current_operation()
        assert operation is not None
        return operation.extend(HOUR)

    with fail_after(10), pytest.raises(TimeoutCancelation):
        async with Cancelable(timeout=0.5) as operation:
            assert await operation.run_in_thread(work)
            await sleep(1)

            assert operation.remaining() > HOUR - 2  # type: ignore[operator]

            threading.Timer(0.05, operation.reschedule, [0.05]).start()
            await sleep_forever()

    assert anyio.current_time() - start < 3


@pytest.mark.real_time
async def test_a_thread_that_is_too_late_changes_nothing() -> None:
    """
    The loop may find, when it gets to it, that the time was up before.
    """
    asked = threading.Event()

    def work(operation: Cancelable) -> None:
        operation.reschedule(HOUR)
        asked.set()

    with pytest.raises(TimeoutCancelation):
        async with Cancelable(timeout=0.2) as operation:
            thread = threading.Thread(target=work, args=(operation,))
            thread.start()
            assert asked.wait(5)  # the loop does not run meanwhile
            threading.Event().wait(0.3)
            await sleep_forever()
    thread.join()


@pytest.mark.real_time
async def test_a_child_in_another_loop_hears_of_a_deadline_that_was_moved() -> None:
    """
    Its clock may be another one: what is handed on is the time that is left.
    """
    took: list[float] = []
    entered = threading.Event()

    def other_loop(parent: Cancelable, backend: str) -> None:
        async def wait() -> None:
            async with Cancelable(parent=parent, raise_on_cancel=False) as child:
                start = anyio.current_time()
                assert child.remaining() == pytest.approx(HOUR, abs=10)
                entered.set()
                await sleep_forever()
            took.append(anyio.current_time() - start)

        anyio.run(wait, backend=backend)

    for backend in anyio.get_available_backends():
        entered.clear()
        with fail_after(10):
            async with Cancelable(timeout=HOUR, raise_on_cancel=False) as parent:
                async with create_task_group() as tasks:
                    tasks.start_soon(anyio.to_thread.run_sync, other_loop, parent, backend)
                    await anyio.to_thread.run_sync(entered.wait)
                    parent.reschedule(0.1)
                    with CancelScope(shield=True):
                        await sleep(0.5)

    assert len(took) == len(anyio.get_available_backends())
    assert max(took) < 3
