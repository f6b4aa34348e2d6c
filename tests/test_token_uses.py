"""What else a token can do: cancel itself after a time, guard, be waited for by threads, stop a call."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from math import inf, nan
from typing import Any

import anyio
import pytest
from anyio import CancelScope, create_task_group, fail_after, move_on_after, sleep, sleep_forever
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint
from hypothesis import given
from hypothesis import strategies as st

from hother.cancelable import (
    Cancelable,
    Cancelation,
    CancelationReason,
    CancelationToken,
    ManualCancelation,
    TimeoutCancelation,
)

from .sweep import cancelling_at, every_checkpoint

HOUR = 3600.0


# --- After a time


@pytest.mark.parametrize("timeout", [5, 5.0, timedelta(seconds=5)])
async def test_a_token_can_be_cancelled_after_a_time(timeout: Any) -> None:
    """
    As the deadline of an operation would do it, without a task or a block.
    """
    token = CancelationToken()
    start = anyio.current_time()

    token.cancel_after(timeout)
    cancelation = await token.wait()

    assert anyio.current_time() - start == 5
    assert cancelation == Cancelation(CancelationReason.TIMEOUT, "timed out after 5 seconds")
    assert token.statistics().callbacks == 0


async def test_the_cancelation_after_a_time_may_say_something_else() -> None:
    """
    It takes what ``cancel`` takes, and it stops operations.
    """
    token = CancelationToken()
    token.cancel_after(1, CancelationReason.SHUTDOWN, "maintenance", by="cron")

    async with Cancelable.with_token(token, raise_on_cancel=False) as operation:
        await sleep_forever()

    assert operation.cancelation == Cancelation(CancelationReason.SHUTDOWN, "maintenance", "cron")

    token = CancelationToken()
    token.cancel_after(0, CancelationReason.ERROR)
    assert (await token.wait()).message is None


async def test_it_can_be_taken_back() -> None:
    """
    In time, too late, and twice; then nothing is left of it.
    """
    token = CancelationToken()
    take_back = token.cancel_after(5)
    await sleep(4)

    take_back()
    take_back()
    await sleep(HOUR)

    assert not token.is_cancelled
    assert token.statistics().callbacks == 0

    take_back = token.cancel_after(1)
    await token.wait()
    take_back()


@pytest.mark.parametrize("how", ["cancelled", "forgotten", "taken back"])
async def test_a_timer_goes_when_it_is_of_no_use(how: str) -> None:
    """
    It does not keep its token alive, and the loop has nothing to do for it any more.
    """
    token = CancelationToken()
    gone = weakref.ref(token)
    take_back = token.cancel_after(HOUR)
    start = anyio.current_time()

    if how == "taken back":
        take_back()
    if how == "cancelled":
        token.cancel()
        assert token.statistics().callbacks == 0
    del token
    if how != "taken back":
        del take_back
    gc.collect()
    assert gone() is None
    await anyio.wait_all_tasks_blocked()

    timers = asyncio.get_running_loop()._scheduled if in_asyncio() else []  # type: ignore[attr-defined]
    assert [timer for timer in timers if not timer.cancelled()] == []
    assert anyio.current_time() == start


def in_asyncio() -> bool:
    return hasattr(anyio.lowlevel.current_token().native_token, "call_soon_threadsafe")


async def test_a_forgotten_token_is_not_cancelled_by_the_timer_that_rings_just_then() -> None:
    """
    The timer may ring before it is taken away.
    """
    token = CancelationToken()
    token.cancel_after(1)
    alarm: Any = token.cancel_after(1).__self__  # type: ignore[attr-defined]
    del token
    gc.collect()

    alarm._ring()
    await sleep(2)


async def test_what_callbacks_raise_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    There is no caller who could be told, and on Trio it would break the run.
    """
    reported: list[BaseException] = []
    monkeypatch.setattr("sys.excepthook", lambda _type, error, _traceback: reported.append(error))
    token = CancelationToken()
    token.add_callback(lambda _: 1 / 0)

    token.cancel_after(1)
    await sleep(2)

    assert token.is_cancelled
    assert [type(error) for error in reported] == [ZeroDivisionError]


async def test_for_ever_is_never() -> None:
    """
    There is not even a timer.
    """
    token = CancelationToken()
    token.cancel_after(inf)()

    assert token.statistics().callbacks == 0


async def test_wrong_times_are_refused() -> None:
    """
    And so are wrong reasons; nothing is left of the attempt.
    """
    token = CancelationToken()

    with pytest.raises(ValueError, match="timeout must not be negative or NaN"):
        token.cancel_after(nan)
    with pytest.raises(TypeError, match="timeout must be a number of seconds"):
        token.cancel_after("1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="reason must be a CancelationReason"):
        token.cancel_after(1, "late")  # type: ignore[arg-type]
    assert token.statistics().callbacks == 0


def test_a_timer_needs_an_event_loop() -> None:
    """
    In a thread without one, the mistake is found at once.
    """
    with pytest.raises(RuntimeError):
        CancelationToken().cancel_after(1)


@pytest.mark.parametrize("backend", anyio.get_available_backends())
def test_a_timer_ends_with_its_loop(backend: str) -> None:
    """
    The loop does not wait for it, and taking it back afterwards does nothing.
    """
    token = CancelationToken()

    async def main() -> Callable[[], None]:
        return token.cancel_after(HOUR)

    start = time.monotonic()
    take_back = anyio.run(main, backend=backend)
    assert time.monotonic() - start < 5

    take_back()
    token.cancel()
    assert token.statistics().callbacks == 0


@pytest.mark.real_time
async def test_a_timer_can_be_taken_back_by_a_thread() -> None:
    """
    The loop's bookkeeping is its own: the thread only asks.
    """
    token = CancelationToken()
    take_back = token.cancel_after(0.3)

    await anyio.to_thread.run_sync(take_back)
    await sleep(0.5)

    assert not token.is_cancelled


# --- Guards


@pytest.mark.parametrize("error", [None, ZeroDivisionError, KeyboardInterrupt])
def test_a_guard_cancels_when_it_is_left(error: type[BaseException] | None) -> None:
    """
    However that happens; the error goes on.
    """
    token = CancelationToken()

    with nullcontext() if error is None else pytest.raises(error):
        with token.guard(CancelationReason.SHUTDOWN, "gone", by="owner") as guard:
            assert guard.token is token
            assert not token.is_cancelled
            if error is not None:
                raise error

    assert token.cancelation == Cancelation(CancelationReason.SHUTDOWN, "gone", "owner")


def test_a_guard_can_be_disarmed() -> None:
    """
    Whoever takes the token over is in charge.
    """
    token = CancelationToken()

    with token.guard() as guard:
        assert guard.disarm() is token

    assert not token.is_cancelled


def test_the_reason_of_a_guard_is_checked_when_it_is_made() -> None:
    """
    Not when it is left, where it would hide what happened.
    """
    with pytest.raises(TypeError, match="reason must be a CancelationReason"):
        CancelationToken().guard("gone")  # type: ignore[arg-type]


async def test_a_guard_stops_what_works_for_its_owner() -> None:
    """
    Also when the owner is interrupted.
    """
    token = CancelationToken()

    async with create_task_group() as tasks:
        tasks.start_soon(token.wait)
        with move_on_after(1), token.guard():
            await sleep_forever()

    assert token.is_cancelled


# --- Until cancelled


async def test_a_call_that_is_in_time_returns_its_value() -> None:
    """
    Whatever that is; and nothing is left on the token.
    """
    token = CancelationToken()

    async def work(a: int, b: int) -> list[int]:
        await sleep(1)
        return [a, b]

    assert await token.run_until_cancelled(work, 1, 2) == [1, 2]
    assert token.statistics().callbacks == 0


async def test_a_call_is_interrupted_when_the_token_is_cancelled() -> None:
    """
    The caller gets the cancelation in place of the value, and goes on.
    """
    token = CancelationToken()
    token.cancel_after(2)
    start = anyio.current_time()

    outcome = await token.run_until_cancelled(sleep_forever)

    assert outcome is token.cancelation
    assert anyio.current_time() - start == 2
    await checkpoint()


async def test_a_call_is_not_begun_when_the_token_was_cancelled_before() -> None:
    """
    And it is a checkpoint all the same.
    """
    token = CancelationToken()
    token.cancel()
    called: list[int] = []

    async def work() -> None:
        called.append(1)  # pragma: no cover

    assert await token.run_until_cancelled(work) is token.cancelation
    with CancelScope() as scope:
        scope.cancel()
        await token.run_until_cancelled(work)
    assert scope.cancelled_caught
    assert called == []


async def test_a_call_that_fails_raises_its_error() -> None:
    """
    Also while it is being interrupted.
    """
    token = CancelationToken()

    async def fail() -> None:
        try:
            await sleep_forever()
        finally:
            raise ZeroDivisionError

    token.cancel_after(1)
    with pytest.raises(ZeroDivisionError):
        await token.run_until_cancelled(fail)


async def test_a_value_is_not_lost_to_a_cancelation_at_the_same_time() -> None:
    """
    Nor is one that a call returns although it was interrupted.
    """
    for late in (False, True):
        token = CancelationToken()

        async def work(token: CancelationToken = token, late: bool = late) -> str:
            if late:
                token.cancel()
                return "value"
            token.cancel_after(1)
            with CancelScope(shield=True):
                await sleep(1)
            return "value"

        assert await token.run_until_cancelled(work) == "value"
        await checkpoint()


async def test_a_cancelation_from_outside_passes_through_a_call() -> None:
    """
    Also if the token was cancelled, too.
    """
    token = CancelationToken()

    with CancelScope() as scope:
        token.add_callback(lambda _: scope.cancel())
        token.cancel_after(1)
        await token.run_until_cancelled(sleep_forever)
        pytest.fail("the cancelation was swallowed")
    assert scope.cancelled_caught

    async with Cancelable(raise_on_cancel=False) as operation:
        operation.token.cancel_after(1)
        await operation.token.run_until_cancelled(sleep_forever)
        pytest.fail("the cancelation was swallowed")


async def test_a_call_may_be_cancelled_at_every_checkpoint() -> None:
    """
    Either the value is handed over or the cancelation is; and nothing is left on the token.
    """

    async def attempt(number: int) -> int:
        token = CancelationToken()
        done: list[int] = []

        async def work() -> str:
            for _ in range(3):
                await sleep(1)
            done.append(1)
            return "value"

        outcome, waits = await cancelling_at(number, token.cancel, token.run_until_cancelled(work))

        assert outcome == "value" if done else outcome is token.cancelation
        assert token.statistics().callbacks == 0
        return waits if not token.is_cancelled or done else 0

    assert len([number async for number in every_checkpoint(attempt)]) > 3


@pytest.mark.real_time
async def test_a_thread_that_cancels_too_late_hurts_nobody() -> None:
    """
    The loop is asked to interrupt a call that has returned.
    """
    token = CancelationToken()

    async def work() -> str:
        thread = threading.Thread(target=token.cancel)
        thread.start()
        thread.join()
        return "value"

    assert await token.run_until_cancelled(work) == "value"
    await sleep(0.05)


@given(value_at=st.integers(1, 6), cancel_at=st.integers(1, 6))
async def test_what_is_first_decides(value_at: int, cancel_at: int) -> None:
    """
    In the same instant either may be; never neither.
    """
    token = CancelationToken()
    token.cancel_after(cancel_at)

    async def work() -> str:
        await sleep(value_at)
        return "value"

    outcome = await token.run_until_cancelled(work)

    if value_at != cancel_at:
        assert outcome == ("value" if value_at < cancel_at else token.cancelation)
    assert outcome in ("value", token.cancelation)


# --- Threads that wait


@pytest.mark.real_time
def test_a_thread_can_wait_for_a_token() -> None:
    """
    It is woken at once, by whatever thread cancels.
    """
    token = CancelationToken()
    threading.Timer(0.05, partial(token.cancel, CancelationReason.SHUTDOWN)).start()

    start = time.monotonic()
    cancelation = token.wait_in_thread(10)

    assert cancelation is token.cancelation
    assert cancelation is not None
    assert time.monotonic() - start < 3
    assert token.wait_in_thread() is cancelation
    assert token.statistics().callbacks == 0


@pytest.mark.real_time
def test_a_thread_can_give_up_waiting() -> None:
    """
    After its own time, with nothing left on the token.
    """
    token = CancelationToken()

    assert token.wait_in_thread(0.05) is None
    assert token.wait_in_thread(timedelta(0)) is None
    assert token.statistics().callbacks == 0
    with pytest.raises(ValueError, match="timeout must not be negative or NaN"):
        token.wait_in_thread(-1)


@pytest.mark.real_time
def test_a_signal_handler_may_cancel_what_the_main_thread_waits_for() -> None:
    """
    The handler runs on top of the waiting, for which it need not wait.
    """
    token = CancelationToken()
    previous = signal.signal(signal.SIGUSR1, lambda *_: token.cancel(CancelationReason.SIGNAL))
    main = threading.get_ident()
    threading.Timer(0.05, lambda: signal.pthread_kill(main, signal.SIGUSR1)).start()
    try:
        start = time.monotonic()
        cancelation = token.wait_in_thread()
    finally:
        signal.signal(signal.SIGUSR1, previous)

    assert cancelation is not None
    assert cancelation.reason is CancelationReason.SIGNAL
    assert time.monotonic() - start < 3


@pytest.mark.real_time
async def test_a_worker_thread_can_wait_and_a_loop_must_not() -> None:
    """
    In the loop's own thread the waiting would keep the loop from everything else.
    """
    token = CancelationToken()

    with pytest.raises(RuntimeError, match=r"would block the event loop of this thread; await wait\(\)"):
        token.wait_in_thread()

    with fail_after(5):
        async with create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, lambda: token.wait_in_thread())
            await sleep(0.05)
            token.cancel()


@pytest.mark.real_time
def test_three_loops_share_one_token_and_each_is_woken() -> None:
    """
    Two of asyncio and one of Trio, in three threads, idle but for that.
    """
    token = CancelationToken()
    ready = threading.Barrier(4)
    woken: list[float] = []
    reasons: set[CancelationReason] = set()

    def run(backend: str) -> None:
        async def main() -> None:
            async with Cancelable(tokens=[token], raise_on_cancel=False) as operation:
                async with create_task_group() as tasks:
                    tasks.start_soon(token.wait)
                    await cancel_shielded_checkpoint()
                    ready.wait(10)
                    await sleep(30)
            woken.append(time.monotonic())
            assert operation.cancelation is not None
            reasons.add(operation.cancelation.reason)

        anyio.run(main, backend=backend)

    backends = ["asyncio", "asyncio", "trio"]
    if "trio" not in anyio.get_available_backends():  # pragma: no cover
        backends[2] = "asyncio"
    threads = [threading.Thread(target=run, args=(backend,)) for backend in backends]
    for thread in threads:
        thread.start()
    ready.wait(10)
    time.sleep(0.2)  # for all of them to be idle
    start = time.monotonic()
    token.cancel(CancelationReason.SHUTDOWN)
    for thread in threads:
        thread.join(20)

    assert len(woken) == 3
    assert max(woken) - start < 2
    assert reasons == {CancelationReason.SHUTDOWN}
    assert token.statistics().callbacks == 0


# --- What it costs


def test_a_hundred_thousand_links_cost_memory_only_while_they_live() -> None:
    """
    Cancelled or not, children that nobody holds are gone, and have left nothing on their parent.
    """
    parent = CancelationToken()

    def links() -> tuple[int, int]:
        tokens = sum(type(thing) is CancelationToken for thing in gc.get_objects())
        return tokens, parent.statistics().callbacks

    gc.collect()
    before = links()
    children = [parent.child() for _ in range(100_000)]
    assert links() == (before[0] + 100_000, 100_000)
    for child in children[::2]:
        child.cancel()
    del children, child

    assert links() == before
    for _ in range(100_000):
        parent.child()
    assert links() == before
    assert sys.getsizeof(parent._callbacks) < 10_000  # a dict shrinks when it is used again


async def test_an_error_of_a_cancelled_token_in_a_call_is_an_error() -> None:
    """
    A call that asks by itself raises, rather than being interrupted.
    """
    token = CancelationToken()

    async def work() -> None:
        token.cancel()
        token.check()

    with pytest.raises(ManualCancelation):
        await token.run_until_cancelled(work)

    token = CancelationToken()
    token.cancel_after(0)
    await token.wait()
    token.cancel_after(0)
    assert token.statistics().callbacks == 0
    with pytest.raises(TimeoutCancelation):
        token.check()
