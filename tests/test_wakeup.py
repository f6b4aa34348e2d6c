"""Reaching an event loop from anywhere: threads, signal handlers, finalizers, other loops.

Lost wake-ups are told by the time they took: a deadline wakes the loop too, and would make a late
success of them.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from anyio import (
    CancelScope,
    create_task_group,
    fail_after,
    get_available_backends,
    sleep_forever,
    wait_all_tasks_blocked,
)
from anyio.lowlevel import checkpoint, current_token

from hother.cancelable import (
    Cancelable,
    CancelationReason,
    CancelationToken,
    ManualCancelation,
    SignalCancelation,
)
from hother.cancelable._core import _wakeup
from hother.cancelable._core._wakeup import call_soon, run_in, running_task, thread_safe_clock
from tests.interruption import at_line

pytestmark = pytest.mark.uvloop  # everywhere here, and all of it on the real clock

SOON = 2.0  #: much longer than a wake-up takes, much shorter than the deadlines below
LATE = 6.0


# --- The functions themselves


async def test_call_soon_calls_in_the_loops_thread() -> None:
    """
    A thread's function runs where the loop runs, with its arguments, and not before the loop has a turn.
    """
    loop = current_token()
    called = anyio.Event()
    threads: list[int] = []

    def note(*args: int) -> None:
        assert args == (1, 2)
        threads.append(threading.get_ident())
        called.set()

    thread = threading.Thread(target=call_soon, args=(loop, note, 1, 2))
    thread.start()
    thread.join()

    assert threads == []

    with fail_after(LATE):
        await called.wait()

    assert threads == [threading.get_ident()]


async def test_run_in_calls_a_task_of_the_loop_at_once() -> None:
    """
    In a task of the loop there is nothing to wait for.
    """
    calls: list[int] = []

    run_in(current_token(), calls.append, 1)

    assert calls == [1]


async def test_run_in_does_not_interrupt_the_loops_machinery() -> None:
    """
    What the loop itself calls is not a task: whatever it does next may be half done.
    """
    loop = current_token()
    calls: list[str] = []
    done = anyio.Event()

    def from_the_loop() -> None:
        run_in(loop, calls.append, "later")
        calls.append("first")
        call_soon(loop, done.set)

    call_soon(loop, from_the_loop)
    with fail_after(LATE):
        await done.wait()

    assert calls == ["first", "later"]


def test_a_loop_that_has_ended_is_not_called(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    """
    Whoever waited there has gone with it, so there is no one to tell and nothing to complain about.
    """
    name, options = anyio_backend

    async def main() -> Any:
        return current_token()

    loop = anyio.run(main, backend=name, backend_options=options)

    call_soon(loop, pytest.fail)
    run_in(loop, pytest.fail)


def test_a_coroutine_that_no_loop_runs_is_no_task_of_one(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    """
    It does not call what belongs to a loop.
    """
    name, options = anyio_backend

    async def main() -> Any:
        return current_token()

    loop = anyio.run(main, backend=name, backend_options=options)

    async def calls() -> None:
        run_in(loop, pytest.fail)

    with pytest.raises(StopIteration):
        calls().send(None)


async def test_a_thread_is_no_task_of_a_loop() -> None:
    """
    Whoever asks there, about whichever loop, is told so rather than given an error.
    """
    loop = current_token().native_token

    assert running_task(loop) is not None
    assert await anyio.to_thread.run_sync(running_task, loop) is None


async def test_the_clock_is_the_loops_and_can_be_read_by_threads() -> None:
    """
    A thread sees the same time as the loop.
    """
    clock = thread_safe_clock(current_token())

    before = anyio.current_time()
    there = await anyio.to_thread.run_sync(clock)
    after = anyio.current_time()

    assert before <= there <= after


# --- Threads


async def test_cancel_from_a_thread_interrupts_an_idle_block_at_once() -> None:
    """
    An operation that waits for nothing else hears of a thread's cancel when it happens.
    """
    operation = Cancelable()
    threading.Timer(0.05, operation.cancel, [CancelationReason.MANUAL, "from a thread"]).start()

    with woken_at_once(), pytest.raises(ManualCancelation, match="from a thread"):
        async with operation:
            await sleep_forever()


async def test_cancel_from_a_worker_thread_of_the_block_interrupts_it() -> None:
    """
    AnyIO's own worker threads are threads like others.
    """

    async def work(operation: Cancelable) -> None:
        await anyio.to_thread.run_sync(operation.cancel)

    with woken_at_once(), pytest.raises(ManualCancelation):
        async with Cancelable() as operation, create_task_group() as group:
            group.start_soon(work, operation)
            await sleep_forever()


async def test_a_thread_that_cancels_after_the_block_disturbs_nobody() -> None:
    """
    The callback is on its way to the loop when the block is left: it must not hit what comes after.
    """
    for _ in range(100):
        token = CancelationToken()
        async with Cancelable.with_token(token):
            thread = threading.Thread(target=token.cancel)
            thread.start()
            thread.join()

        await checkpoint()

    assert_nothing_pending()


def test_loops_in_several_threads_share_a_token(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    """
    One cancel reaches operations and waiters of three loops, each in its own thread, whatever the backend.
    """
    token = CancelationToken()
    name, options = anyio_backend
    others: list[tuple[str, dict[str, Any]]] = [(other, {}) for other in get_available_backends()]
    backends = [(name, options), *others]
    ready = threading.Semaphore(0)
    woken: list[tuple[str, int, float]] = []

    async def main() -> None:
        async def work() -> None:
            with pytest.raises(SignalCancelation):
                async with Cancelable.with_token(token):
                    await sleep_forever()
            woken.append(("operation", threading.get_ident(), time.monotonic()))

        async def listen() -> None:
            await token.wait()
            woken.append(("waiter", threading.get_ident(), time.monotonic()))

        with fail_after(LATE):
            async with create_task_group() as group:
                group.start_soon(work)
                group.start_soon(listen)
                await wait_all_tasks_blocked()
                ready.release()

    def run(name: str, options: dict[str, Any]) -> None:
        anyio.run(main, backend=name, backend_options=options)

    threads = [threading.Thread(target=run, args=backend) for backend in backends]
    for thread in threads:
        thread.start()
    for _ in threads:
        ready.acquire()
    start = time.monotonic()

    assert token.statistics().callbacks == 2 * len(backends)
    assert token.cancel(CancelationReason.SIGNAL)

    for thread in threads:
        thread.join()

    expected = sorted((what, thread.ident) for what in ("operation", "waiter") for thread in threads)
    assert sorted((what, ident) for what, ident, _ in woken) == expected
    assert max(at for _, _, at in woken) - start < SOON
    assert token.statistics().callbacks == 0


async def test_a_child_in_another_loop_ends_with_its_parent() -> None:
    """
    Parent and child may live in different loops and threads.
    """
    outcome: list[BaseException] = []
    running = threading.Event()

    async def work(parent: Cancelable) -> None:
        try:
            with fail_after(LATE):
                async with Cancelable(parent=parent):
                    running.set()
                    await sleep_forever()
        except Exception as error:
            outcome.append(error)

    parent = Cancelable(name="boss")
    thread = threading.Thread(target=anyio.run, args=(work, parent))
    with woken_at_once(), pytest.raises(ManualCancelation):
        async with parent:
            thread.start()
            await anyio.to_thread.run_sync(running.wait)
            parent.cancel()
            await anyio.to_thread.run_sync(thread.join)
            await checkpoint()
    thread.join()

    assert [type(error).__name__ for error in outcome] == ["ParentCancelation"]


# --- Signal handlers


async def test_cancel_from_a_signal_handler_interrupts_an_idle_block_at_once() -> None:
    """
    A handler of the plain `signal` module may cancel, and a loop that waits for nothing else is woken.
    """
    operation = Cancelable()
    kill = threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGUSR1])

    with handler(signal.SIGUSR1, lambda: operation.cancel(CancelationReason.SIGNAL)):
        with woken_at_once(), pytest.raises(SignalCancelation):
            async with operation:
                kill.start()
                await sleep_forever()
        kill.join()


async def test_cancel_from_a_signal_handler_wakes_a_waiter_at_once() -> None:
    """
    The same holds for who waits for the token itself.
    """
    token = CancelationToken()
    kill = threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGUSR1])

    with handler(signal.SIGUSR1, lambda: token.cancel(CancelationReason.SIGNAL)):
        kill.start()
        with woken_at_once():
            cancelation = await token.wait()
        kill.join()

    assert cancelation.reason is CancelationReason.SIGNAL


async def test_a_signal_in_the_block_counts_at_the_next_checkpoint() -> None:
    """
    A handler that interrupts the very block it cancels does so like any other caller.
    """
    token = CancelationToken()
    with handler(signal.SIGUSR1, lambda: token.cancel(CancelationReason.SIGNAL)):
        with pytest.raises(SignalCancelation):
            async with Cancelable.with_token(token):
                signal.raise_signal(signal.SIGUSR1)
                await checkpoint()
                pytest.fail("the checkpoint did not raise")


async def test_a_storm_of_signals_leaves_no_stray_cancelation() -> None:
    """
    Handlers interrupt everything, the loop's insides too; blocks end whole or by their own cancelation.
    """
    current: list[CancelationToken] = []
    cancelled = 0
    stop = time.monotonic() + 0.3

    def cancel_current() -> None:
        if current:
            current[-1].cancel(CancelationReason.SIGNAL)
        if time.monotonic() < stop:  # the next one, and not before: on a busy machine they would be nested
            signal.setitimer(signal.ITIMER_REAL, 0.0003)

    # Operations are short in relation to the signals: some are hit here, some there, some not at all.
    with handler(signal.SIGALRM, cancel_current):
        signal.setitimer(signal.ITIMER_REAL, 0.0003)
        try:
            while time.monotonic() < stop:
                current.append(CancelationToken())
                try:
                    async with Cancelable.with_token(current[-1]):
                        async with create_task_group() as group:
                            group.start_soon(checkpoint)
                            await checkpoint()
                        await checkpoint()
                except SignalCancelation:
                    cancelled += 1
                await checkpoint()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    await checkpoint()
    assert_nothing_pending()
    assert cancelled
    assert [token.statistics().callbacks for token in current] == [0] * len(current)


async def test_a_signal_handler_may_cancel_at_any_line() -> None:
    """
    Whatever line of the library or of the loop a handler interrupts: the block ends, and only the block.
    """
    line = 0
    while True:
        line += 1
        token = CancelationToken()
        interrupted: list[Cancelable] = []

        async def work(token: CancelationToken = token, interrupted: list[Cancelable] = interrupted) -> None:
            try:
                async with Cancelable.with_token(token) as operation:
                    await checkpoint()
                    await sleep_forever()
            except SignalCancelation:
                interrupted.append(operation)
            await checkpoint()

        async with create_task_group() as group:
            with at_line(line, partial(token.cancel, CancelationReason.SIGNAL)) as where:
                group.start_soon(work)
                await checkpoint()
                await checkpoint()
            token.cancel(CancelationReason.SIGNAL)  # if there is no such line
            with woken_at_once():
                while not interrupted:
                    await checkpoint()

        assert_nothing_pending()
        assert token.statistics().callbacks == 0

        if not where:
            break

    assert line > 50


# --- Finalizers


class CancelsWhenCollected:
    """Cancels a token at the end of its own life."""

    def __init__(self, token: CancelationToken) -> None:
        self.token = token

    def __del__(self) -> None:
        self.token.cancel(message="collected")


async def test_cancel_from_a_finalizer_in_the_block() -> None:
    """
    An object that dies in the block can cancel it.
    """
    token = CancelationToken()
    with pytest.raises(ManualCancelation, match="collected"):
        async with Cancelable.with_token(token):
            CancelsWhenCollected(token)
            gc.collect()
            await checkpoint()
            pytest.fail("the checkpoint did not raise")


async def test_cancel_from_a_finalizer_in_the_loops_machinery() -> None:
    """
    An object that dies in the middle of the loop's own work can cancel a block, too.
    """
    token = CancelationToken()
    with woken_at_once(), pytest.raises(ManualCancelation, match="collected"):
        async with Cancelable.with_token(token):
            call_soon(current_token(), id, CancelsWhenCollected(token))
            gc.collect()
            await sleep_forever()


async def test_cancel_from_a_finalizer_in_a_thread() -> None:
    """
    The garbage collector runs in whatever thread it likes.
    """
    token = CancelationToken()

    def collect() -> None:
        ring: list[object] = [CancelsWhenCollected(token)]
        ring.append(ring)
        del ring
        gc.collect()

    with woken_at_once(), pytest.raises(ManualCancelation, match="collected"):
        async with Cancelable.with_token(token), create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, collect)
            await sleep_forever()


# --- The next checkpoint


@pytest.mark.parametrize("cancel", ["token", "operation", "parent", "linked token"])
async def test_the_checkpoint_after_a_cancel_raises(cancel: str) -> None:
    """
    There is no race: two hundred times out of two hundred it is the very next one.
    """
    for _ in range(200):
        token = CancelationToken()
        parent = Cancelable()
        operation = Cancelable(tokens=[token.child()], parent=parent)
        cancels: dict[str, Callable[[], bool]] = {
            "token": operation.token.cancel,
            "operation": operation.cancel,
            "parent": parent.cancel,
            "linked token": token.cancel,
        }
        reached = False
        with CancelScope() as scope:
            try:
                async with operation:
                    cancels[cancel]()
                    await checkpoint()
                    reached = True
            except Exception:
                scope.cancel()

        assert operation.is_cancelled
        assert not reached

    assert_nothing_pending()


async def test_a_cancel_by_another_task_counts_at_the_next_checkpoint() -> None:
    """
    The cancelled task does not get past the checkpoint that it is waiting in.
    """
    for _ in range(200):
        token = CancelationToken()
        passed: list[int] = []

        async def work(token: CancelationToken = token, passed: list[int] = passed) -> None:
            with pytest.raises(ManualCancelation):
                async with Cancelable.with_token(token):
                    await sleep_forever()
                    passed.append(1)

        async with create_task_group() as group:
            group.start_soon(work)
            await wait_all_tasks_blocked()
            token.cancel()

        assert passed == []


@contextmanager
def woken_at_once() -> Iterator[None]:
    """Fail if what is inside ends by the deadline, or so late that the deadline may have helped."""
    start = anyio.current_time()
    with fail_after(LATE):
        yield

    assert anyio.current_time() - start < SOON


@contextmanager
def handler(number: signal.Signals, function: Callable[[], object]) -> Iterator[None]:
    """Have *function* called by a handler of the plain signal module."""
    previous = signal.signal(number, lambda *_: void(function()))
    try:
        yield
    finally:
        signal.signal(number, previous)


def void(_: object) -> None: ...


def assert_nothing_pending() -> None:
    """On asyncio, tell whether a cancelation is still counted against this task."""
    if sys.version_info >= (3, 11):
        import asyncio

        try:
            task = asyncio.current_task()
        except RuntimeError:  # Trio
            return
        assert task is None or task.cancelling() == 0


@pytest.mark.only_on("asyncio")
async def test_without_sniffio_everything_is_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    AnyIO alone is enough: it takes every loop for asyncio's where sniffio is not installed, and so do blocks.
    """
    monkeypatch.setitem(sys.modules, "sniffio", None)
    spec = importlib.util.find_spec("hother.cancelable._core._wakeup")
    assert spec is not None
    assert spec.loader is not None
    without = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(without)

    runtime, loop, clock, now, task = without.current_place()
    with runtime.scopes() as scope:
        scope.cancel()
        await sleep_forever()

    assert scope.cancelled_caught
    assert loop is current_token().native_token
    assert task is running_task(loop)
    assert abs(now - anyio.current_time()) < SOON
    assert 0 <= runtime.time(clock) - now < SOON


async def test_a_loop_in_which_no_block_was_entered_is_found_nevertheless(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    What is known of a backend since the first block is only a shorter way.
    """
    called: list[str] = []
    monkeypatch.setattr(_wakeup, "_loops", {})

    run_in(current_token(), called.append, "at once")

    assert called == ["at once"]


def test_a_block_that_is_entered_outside_of_any_loop_says_what_is_missing() -> None:
    """
    The error is AnyIO's own, whatever found out first that no event loop runs.
    """
    with pytest.raises(RuntimeError, match=r"currently running on any asynchronous event loop"):
        Cancelable().__aenter__().send(None)
