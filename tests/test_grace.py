"""Told first, interrupted later: the grace period, and the time for cleaning up."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from anyio import CancelScope, create_task_group, move_on_after, sleep, sleep_forever, wait_all_tasks_blocked
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from hother.cancelable import (
    Cancelable,
    CancelationError,
    CancelationReason,
    CancelationToken,
    ManualCancelation,
    OperationStatus,
    ParentCancelation,
    TimeoutCancelation,
)

HOUR = 3600.0


class Clock:
    """Tells how long it is since it was made."""

    def __init__(self) -> None:
        self.start = anyio.current_time()

    def __call__(self) -> float:
        return anyio.current_time() - self.start


# --- Grace


async def test_the_token_is_told_at_once_and_the_block_interrupted_later() -> None:
    """
    Everybody who asks or listens hears of it, and has the grace period to end.
    """
    clock = Clock()
    heard: list[float] = []

    with pytest.raises(ManualCancelation):
        async with Cancelable(grace=3) as operation:
            operation.token.add_callback(lambda _: heard.append(clock()))
            await sleep(1)
            operation.cancel()

            assert heard == [1]
            with pytest.raises(ManualCancelation):
                operation.check()

            await sleep(2)
            heard.append(clock())
            await sleep_forever()

    assert heard == [1, 3]
    assert clock() == 4


async def test_the_deadline_has_a_grace_period_too() -> None:
    """
    The token is told at the deadline, though nobody asks; the block is interrupted after the grace period.
    """
    clock = Clock()
    heard: list[float] = []

    with pytest.raises(TimeoutCancelation, match="timed out after 5 seconds"):
        async with Cancelable(timeout=5, grace=2) as operation:
            operation._token.add_callback(lambda _: heard.append(clock()))

            assert operation.remaining() == 5

            await sleep_forever()

    assert heard == [5]
    assert clock() == 7


async def test_a_cancel_before_the_deadline_is_what_the_grace_period_counts_from() -> None:
    """
    And neither a later cause nor the deadline makes it longer or shorter.
    """
    clock = Clock()

    with pytest.raises(ManualCancelation):
        async with Cancelable(timeout=5, grace=4) as operation:
            await sleep(3)
            operation.cancel()
            await sleep(1)
            operation.cancel()
            await sleep_forever()

    assert clock() == 7


async def test_the_grace_period_follows_a_deadline_that_is_moved() -> None:
    """
    Sooner or later; once the grace period has begun it is too late for that.
    """
    clock = Clock()

    with pytest.raises(TimeoutCancelation):
        async with Cancelable(timeout=5, grace=2) as operation:
            operation.extend(10)
            await sleep(8)
            operation.reschedule(1)
            await sleep(2)

            assert operation.is_cancelled
            assert not operation.reschedule(None)

            await sleep_forever()

    assert clock() == 11


async def test_a_block_that_ends_within_the_grace_period_has_completed() -> None:
    """
    Nothing was cut short: what it returns is not thrown away, and who must know asks.
    """

    async def work() -> str:
        async with Cancelable(grace=5) as operation:
            operation.cancel()
            await sleep(3)
            return "the result"
        pytest.fail("the block was interrupted")

    assert await work() == "the result"

    async with Cancelable(timeout=1, grace=5) as operation:
        await operation.token.wait()

    assert operation.status is OperationStatus.COMPLETED
    assert operation.is_cancelled
    await sleep(HOUR)


@pytest.mark.parametrize("raise_on_cancel", [True, False])
async def test_a_block_that_asks_within_the_grace_period_was_cancelled(raise_on_cancel: bool) -> None:
    """
    It has cleaned up, and says so with ``check()``.
    """
    try:
        async with Cancelable(timeout=1, grace=5, raise_on_cancel=raise_on_cancel) as operation:
            await operation.token.wait()
            await sleep(2)
            operation.check()
    except TimeoutCancelation:
        assert raise_on_cancel

    assert operation.status is OperationStatus.CANCELLED


@pytest.mark.parametrize("grace", [0, None, 0.0])
async def test_no_grace_is_none(grace: float | None) -> None:
    """
    Then the scope is cancelled when ``cancel()`` returns.
    """
    with pytest.raises(ManualCancelation):
        async with Cancelable(grace=grace) as operation:
            operation.cancel()
            await checkpoint()
            pytest.fail("the checkpoint did not raise")


@pytest.mark.parametrize("name", ["grace", "cleanup_budget"])
def test_an_impossible_time_is_refused(name: str) -> None:
    """
    As with timeouts, and the argument is named.
    """
    with pytest.raises(ValueError, match=f"{name} must not be negative or NaN"):
        Cancelable(**{name: -1})  # type: ignore[arg-type]

    with pytest.raises(TypeError, match=f"{name} must be a number of seconds"):
        Cancelable(**{name: "1"})  # type: ignore[arg-type]


async def test_infinite_grace_only_tells() -> None:
    """
    As if the block asked by itself.
    """
    async with Cancelable(grace=float("inf")) as operation:
        operation.cancel()
        await checkpoint()


async def test_a_cancelation_before_the_block_has_its_grace_period_from_entering() -> None:
    """
    What must be cleaned up has not begun before.
    """
    operation = Cancelable(grace=2)
    operation.cancel()
    await sleep(HOUR)

    clock = Clock()
    with pytest.raises(ManualCancelation):
        async with operation:
            await sleep_forever()

    assert clock() == 2


async def test_a_shield_outlasts_the_grace_period() -> None:
    """
    What is shielded runs to its end, as ever.
    """
    clock = Clock()

    with pytest.raises(ManualCancelation):
        async with Cancelable(grace=1) as operation:
            operation.cancel()
            async with operation.shield():
                await sleep(5)
            await checkpoint()

    assert clock() == 5


async def test_children_are_told_at_once_and_have_their_own_grace() -> None:
    """
    The grace of a parent is the time that it waits for itself, not for others.
    """
    clock = Clock()
    ended: dict[str, float] = {}

    async def work(parent: Cancelable, name: str, grace: float) -> None:
        try:
            async with Cancelable(parent=parent, grace=grace):
                await sleep_forever()
        except ParentCancelation:
            ended[name] = clock()

    async with create_task_group() as tasks:
        with pytest.raises(TimeoutCancelation):
            async with Cancelable(timeout=1, grace=10) as parent:
                tasks.start_soon(work, parent, "abrupt", 0)
                tasks.start_soon(work, parent, "gentle", 2)
                await sleep_forever()

    assert ended == {"abrupt": 1, "gentle": 3}
    assert clock() == 11


async def test_a_block_inside_is_interrupted_with_the_one_around_it() -> None:
    """
    At the end of the outer one's grace; before that, it is asked that counts. One of its own does not delay.
    """
    clock = Clock()

    with pytest.raises(ManualCancelation):
        async with Cancelable(grace=3) as outer:
            outer.cancel(message="outer")
            try:
                async with Cancelable(timeout=100, grace=50) as inner:
                    with pytest.raises(ManualCancelation):
                        inner.check()
                    await sleep_forever()
            finally:
                assert inner.status is OperationStatus.CANCELLED
                assert inner.cancelation is not None
                assert inner.cancelation.cause is outer.cancelation

    assert clock() == 3


async def test_a_block_that_another_scope_interrupts_does_not_blame_one_that_has_grace() -> None:
    """
    Only who has interrupted it did so.
    """
    with move_on_after(1):
        async with Cancelable(grace=HOUR) as outer:
            outer.cancel()
            async with Cancelable() as inner:
                await sleep_forever()

    assert inner.cancelation is not None
    assert inner.cancelation.reason is CancelationReason.EXTERNAL


async def test_the_steps_of_a_stream_share_one_grace_period() -> None:
    """
    It begins with the cancelation, and is not begun anew by each step.
    """
    clock = Clock()
    token = CancelationToken()

    async def ticks() -> AsyncIterator[int]:
        for number in range(100):
            await sleep(1)
            yield number

    stream = Cancelable(tokens=[token], grace=3).stream(ticks())

    async def cancel() -> None:
        await sleep(2.5)
        token.cancel()

    async with create_task_group() as tasks:
        tasks.start_soon(cancel)
        with pytest.raises(ManualCancelation):
            async for _ in stream:
                pass

    assert clock() == 5.5
    assert stream.count == 5


@pytest.mark.real_time
async def test_a_thread_that_cancels_starts_the_grace_period() -> None:
    """
    In an idle loop.
    """
    clock = Clock()
    with pytest.raises(ManualCancelation):
        async with Cancelable(grace=0.2) as operation:
            threading.Timer(0.05, operation.cancel).start()
            assert (await operation.token.wait()).reason is CancelationReason.MANUAL
            assert clock() < 2
            await sleep_forever()

    assert 0.2 <= clock() < 3


@given(
    timeout=st.one_of(st.none(), st.integers(0, 6)),
    grace=st.integers(0, 6),
    cancel_at=st.one_of(st.none(), st.integers(0, 6)),
    extend_at=st.one_of(st.none(), st.integers(0, 6)),
    ends_at=st.integers(1, 20),
)
async def test_the_block_has_the_grace_period_and_no_more(
    timeout: int | None, grace: int, cancel_at: int | None, extend_at: int | None, ends_at: int
) -> None:
    """
    Deadlines, their moves and cancels: told at the first of them, interrupted after the grace period.
    """
    deadline = float("inf") if timeout is None else timeout
    if extend_at is not None and extend_at < min(deadline, 99 if cancel_at is None else cancel_at):
        deadline += 3
    soft = min(deadline, float("inf") if cancel_at is None else cancel_at)
    # Halves, so that nothing else is at the same time as the end.
    end = min(soft + grace, ends_at - 0.5)
    clock = Clock()
    heard: list[float] = []

    async def meddle(operation: Cancelable) -> None:
        events: list[tuple[float, int, Any]] = []
        if extend_at is not None:
            events.append((extend_at, 1, lambda: operation.extend(3)))
        if cancel_at is not None:
            events.append((cancel_at, 0, operation.cancel))
        for at, _, act in sorted(events, key=lambda event: event[:2]):
            await sleep(at - clock())
            act()

    operation = Cancelable(timeout=timeout, grace=grace, raise_on_cancel=False)
    operation._token.add_callback(lambda _: heard.append(clock()))
    async with create_task_group() as tasks:
        async with operation:
            tasks.start_soon(meddle, operation)
            await sleep(ends_at - 0.5)
        took = clock()

    assert took == end
    told_in_time = [soft] if soft < end or (grace == 0 and soft == end) else []
    assert [at for at in heard if at <= end] == told_in_time or soft == end
    expected = OperationStatus.CANCELLED if soft + grace < ends_at - 0.5 else OperationStatus.COMPLETED
    assert operation.status is expected


# --- A budget for cleaning up


async def test_ten_clean_ups_share_one_budget() -> None:
    """
    Each may take five seconds, and all together seven.
    """
    clock = Clock()
    durations: list[float] = []

    with pytest.raises(ManualCancelation):
        async with Cancelable(cleanup_budget=7) as operation:
            await sleep(100)
            operation.cancel()
            for _ in range(10):
                began = clock()
                try:
                    async with operation.shield(5):
                        await sleep(4)
                except TimeoutCancelation as error:
                    message = str(error)
                durations.append(clock() - began)
            await checkpoint()

    assert durations == [4, 3, *[0] * 8]
    assert message == "a shielded section used up the 7 seconds that its operation has to clean up"
    assert clock() == 107


async def test_a_section_that_runs_already_has_the_budget_from_the_cancelation() -> None:
    """
    By a cancel or by the deadline, moved or not; others are not touched.
    """
    for how in ("cancel", "deadline", "moved"):
        clock = Clock()
        other = Cancelable(cleanup_budget=1)
        async with create_task_group() as tasks:
            operation = Cancelable(timeout=None if how == "cancel" else 10, cleanup_budget=2)

            async def cancel(operation: Cancelable = operation, how: str = how) -> None:
                if how == "moved":
                    operation.extend(5)
                await sleep(10)
                if how == "cancel":
                    operation.cancel()

            tasks.start_soon(cancel)
            with pytest.raises(TimeoutCancelation):
                async with other, other.shield(50), operation, operation.shield(100):
                    await sleep_forever()

        assert clock() == (17 if how == "moved" else 12)


async def test_the_budget_begins_when_the_grace_period_is_over() -> None:
    """
    Until then nothing is cut short.
    """
    clock = Clock()

    with pytest.raises(ManualCancelation):
        async with Cancelable(grace=3, cleanup_budget=2) as operation:
            operation.cancel()
            with pytest.raises(TimeoutCancelation):
                async with operation.shield():
                    await sleep_forever()
            await checkpoint()

    assert clock() == 5


@pytest.mark.parametrize("outside", [True, False])
async def test_callbacks_share_the_budget(outside: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Also with the sections before them; from a cancelation outside they have it when the block is left.
    """
    reported: list[str] = []
    monkeypatch.setattr("sys.excepthook", lambda _type, error, _traceback: reported.append(str(error)))
    clock = Clock()
    operation = Cancelable(cleanup_budget=5, raise_on_cancel=False)
    for _ in range(5):
        operation.on_cancel(lambda _: sleep(3.5))

    with CancelScope() as scope:
        async with operation:
            (scope if outside else operation).cancel()
            if not outside:
                async with operation.shield(4):
                    await sleep(1)
            await checkpoint()

    assert clock() == 5
    assert len(reported) == 4
    assert "within the 5 seconds that its operation has to clean up" in reported[0]


async def test_callbacks_of_an_operation_that_was_not_cancelled_have_their_own_time() -> None:
    """
    The budget is for clean-up, and that is none.
    """
    clock = Clock()
    operation = Cancelable(cleanup_budget=1)
    operation.on_complete(lambda _: sleep(4)).on_start(lambda _: sleep(3))

    async with operation, operation.shield(20):
        await sleep(10)

    assert clock() == 17


@pytest.mark.parametrize("own", [True, False])
async def test_closing_a_stream_shares_the_budget(own: bool) -> None:
    """
    In the operation's block, and for those that follow it.
    """

    class Slow:
        def __aiter__(self) -> AsyncIterator[int]:
            return self

        async def __anext__(self) -> int:
            await sleep_forever()
            return 0

        async def aclose(self) -> None:
            await sleep(8)

    clock = Clock()
    operation = Cancelable(timeout=1, cleanup_budget=3)
    with pytest.raises((TimeoutError, CancelationError)) as caught:
        if own:
            await operation.stream(Slow()).__anext__()
        else:
            async with operation:
                await operation.stream(Slow()).__anext__()

    assert "within the 3 seconds that its operation has to clean up" in str(caught.value)
    assert clock() == 4


async def test_nothing_of_a_section_stays_with_the_budget() -> None:
    """
    Neither of one that ended in time nor of one that did not.
    """
    async with Cancelable(cleanup_budget=3) as operation:
        async with operation.shield():
            await wait_all_tasks_blocked()
        with pytest.raises(TimeoutCancelation):
            async with operation.shield(1):
                await sleep_forever()

    assert operation._cleanup is not None
    assert operation._cleanup._scopes == {}
