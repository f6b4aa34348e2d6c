"""What the core promises where other libraries of its kind have failed: on asyncio, Trio and uvloop.

Each promise is tested in depth beside the module that keeps it. Here they stand together, as a user
would try them, and on the real clock.
"""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import anyio
import pytest
from anyio import create_task_group, sleep, sleep_forever, to_thread
from anyio.lowlevel import checkpoint

from hother.cancelable import (
    AllOfSource,
    AnyOfSource,
    Cancelable,
    CancelationError,
    CancelationReason,
    CancelationToken,
    LifecycleError,
    ManualCancelation,
    OperationRegistry,
    OperationStatus,
    ParentCancelation,
    SignalCancelation,
    TimeoutCancelation,
    TimeoutSource,
    TokenSource,
    cancelable_combine,
    cancelable_stream,
    current_operation,
)

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

pytestmark = pytest.mark.uvloop  # everywhere here, and all of it on the real clock

SHORT = 0.02
LONG = 60


# --- Timeouts


async def test_a_timeout_in_a_task_group_is_an_error_and_stops_what_comes_after() -> None:
    """
    The siblings end with the group, the group ends with the error, and nothing runs on.
    """
    reached: list[str] = []

    async def times_out() -> None:
        async with Cancelable(timeout=SHORT):
            await sleep(LONG)
        reached.append("after the block")

    with pytest.raises(ExceptionGroup) as caught:
        async with create_task_group() as tasks:
            tasks.start_soon(times_out)
            tasks.start_soon(sleep, LONG)

    assert [type(error) for error in caught.value.exceptions] == [TimeoutCancelation]
    assert reached == []


@pytest.mark.parametrize("kind", [AnyOfSource, AllOfSource])
async def test_a_timeout_within_a_composite_fires(kind: Any) -> None:
    """
    A timeout source among others ends the operation, and not before its time.
    """
    start = anyio.current_time()

    with pytest.raises(TimeoutCancelation):
        async with Cancelable(sources=[kind([TimeoutSource(SHORT), TimeoutSource(SHORT / 2)])]):
            await sleep(LONG)

    due = SHORT if kind is AllOfSource else SHORT / 2
    assert due - 0.001 <= anyio.current_time() - start < due + 1  # clocks are floats


async def test_a_composite_does_not_cancel_by_itself() -> None:
    """
    Sources that have no reason to cancel leave the block alone.
    """
    async with Cancelable(sources=[AnyOfSource([TokenSource(CancelationToken()), TimeoutSource(LONG)])]):
        await sleep(SHORT)


async def test_a_combined_operation_cancels() -> None:
    """
    As a decorator and as a method, the first of the parts ends the whole.
    """
    token = CancelationToken()

    @cancelable_combine(Cancelable(timeout=LONG), Cancelable.with_token(token))
    async def wait() -> None:
        token.cancel(message="enough")
        await sleep(LONG)

    with pytest.raises(ManualCancelation, match="enough"):
        await wait()
    with pytest.raises(TimeoutCancelation):
        async with Cancelable(timeout=LONG).combine(Cancelable(timeout=SHORT)):
            await sleep(LONG)


# --- Threads and loops


async def test_a_cancel_from_a_thread_wakes_an_idle_loop_at_once() -> None:
    """
    No bridge has to be started, and nobody polls.
    """
    token = CancelationToken()
    called = 0.0

    def cancel() -> None:
        nonlocal called
        called = time.perf_counter()
        token.cancel()

    timer = threading.Timer(SHORT, cancel)
    timer.start()
    with pytest.raises(ManualCancelation):
        async with Cancelable.with_token(token):
            await sleep_forever()
    latency = time.perf_counter() - called
    timer.join()

    assert latency < 1


async def test_of_many_cancels_from_threads_none_is_lost() -> None:
    """
    However many come at once, each reaches its operation.
    """
    tokens = [CancelationToken() for _ in range(200)]
    ended: list[int] = []

    async def wait(number: int) -> None:
        async with Cancelable.with_token(tokens[number], raise_on_cancel=False):
            await sleep_forever()
        ended.append(number)

    async with create_task_group() as tasks:
        for number in range(len(tokens)):
            tasks.start_soon(wait, number)
        await anyio.wait_all_tasks_blocked()
        threads = [threading.Thread(target=_cancel_all, args=(tokens[part::4],)) for part in range(4)]
        for thread in threads:
            thread.start()

    for thread in threads:
        thread.join()
    assert sorted(ended) == list(range(len(tokens)))


async def test_with_two_loops_each_operation_is_stopped_in_its_own_thread(
    anyio_backend: tuple[str, dict[str, Any]],
) -> None:
    """
    One token is shared by operations of two loops. What it stops, it stops where that runs.
    """
    token = CancelationToken()
    stopped: dict[str, int] = {}
    is_running = threading.Event()

    async def wait(name: str) -> None:
        operation = Cancelable.with_token(token, raise_on_cancel=False)
        operation.on_cancel(lambda _: stopped.setdefault(name, threading.get_ident()))
        async with operation:
            if name == "there":
                is_running.set()
            await sleep_forever()

    def run() -> None:
        backend, options = anyio_backend
        anyio.run(wait, "there", backend=backend, backend_options=options)

    thread = threading.Thread(target=run)
    thread.start()
    async with create_task_group() as tasks:
        tasks.start_soon(wait, "here")
        await to_thread.run_sync(is_running.wait)
        await anyio.wait_all_tasks_blocked()
        token.cancel()
    await to_thread.run_sync(thread.join)

    assert stopped == {"here": threading.get_ident(), "there": thread.ident}


async def test_wrap_and_run_in_thread_work() -> None:
    """
    They return what the function returns, and the operation is the current one there.
    """

    async def work(number: int) -> tuple[int, object]:
        await checkpoint()
        return number, current_operation()

    async with Cancelable() as operation:
        assert await operation.wrap(work)(1) == (1, operation)
        assert await operation.run_in_thread(current_operation) is operation
        operation.check()


# --- Signals


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send itself a signal")
async def test_every_listener_for_a_signal_hears_it() -> None:
    """
    Two listen; a third one has left before; and the process is still there.
    """
    ended: list[str] = []

    async def listen(name: str) -> None:
        try:
            async with Cancelable.with_signal(signal.SIGUSR1):
                await sleep_forever()
        except SignalCancelation:
            ended.append(name)

    async with create_task_group() as tasks:
        tasks.start_soon(listen, "first")
        tasks.start_soon(listen, "second")
        async with Cancelable.with_signal(signal.SIGUSR1):
            await anyio.wait_all_tasks_blocked()
        signal.raise_signal(signal.SIGUSR1)

    assert sorted(ended) == ["first", "second"]
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


# --- Parents and children


async def test_a_parents_timeout_reaches_its_children_in_other_tasks() -> None:
    """
    A child ends when its parent's time is up, wherever it runs.
    """
    ended: list[CancelationReason | None] = []

    async def child_of(parent: Cancelable) -> None:
        try:
            async with Cancelable(parent=parent):
                await sleep(LONG)
        except ParentCancelation as error:
            cause = error.cancelation.cause
            ended.append(None if cause is None else cause.reason)

    async with create_task_group() as tasks:
        async with Cancelable(timeout=SHORT, raise_on_cancel=False) as parent:
            tasks.start_soon(child_of, parent)
            await sleep(LONG)

    assert ended == [CancelationReason.TIMEOUT]


async def test_a_parent_that_cancels_itself_in_its_own_block_reaches_all_its_children() -> None:
    """
    Children in other tasks end with a parent that cancels itself.
    """
    ended: list[type[Exception]] = []

    async def child_of(parent: Cancelable) -> None:
        try:
            async with Cancelable(parent=parent):
                await sleep(LONG)
        except CancelationError as error:
            ended.append(type(error))

    async with create_task_group() as tasks:
        async with Cancelable(raise_on_cancel=False) as parent:
            for _ in range(3):
                tasks.start_soon(child_of, parent)
            await anyio.wait_all_tasks_blocked()
            parent.cancel()
            await sleep(LONG)

    assert ended == [ParentCancelation] * 3


# --- Nothing is left behind


@pytest.mark.parametrize("how", ["token", "parent", "combine"])
async def test_ten_thousand_short_operations_leave_nothing_on_a_long_one(how: str) -> None:
    """
    Neither a callback on what they were tied to, nor an object of their own.
    """
    token, parent = CancelationToken(), Cancelable()
    make: dict[str, Callable[[], Cancelable]] = {
        "token": lambda: Cancelable.with_token(token),
        "parent": lambda: Cancelable(parent=parent),
        "combine": lambda: Cancelable.with_token(token).combine(parent),
    }

    for _ in range(10_000):
        async with make[how]():
            pass
    gc.collect()

    assert token.statistics().callbacks == parent.token.statistics().callbacks == 0
    assert _alive(Cancelable) - {id(parent)} == set()


async def test_an_outer_cancelation_leaves_nothing_behind() -> None:
    """
    The operation has ended, is nobody's current one, and in no registry.
    """
    registry = OperationRegistry()
    with anyio.move_on_after(SHORT):
        async with Cancelable(observers=[registry]) as operation:
            await sleep(LONG)

    assert operation.status is OperationStatus.CANCELLED
    assert current_operation() is None
    assert operation.id not in registry
    assert len(registry) == 0


async def test_an_operation_serves_one_block() -> None:
    """
    It is refused a second one, after the first and within it, and comes to no harm.
    """
    async with Cancelable() as operation:
        with pytest.raises(LifecycleError):
            await operation.__aenter__()
        assert current_operation() is operation

    with pytest.raises(LifecycleError):
        await operation.__aenter__()
    assert operation.status is OperationStatus.COMPLETED
    assert current_operation() is None


# --- Streams


async def test_a_break_leaves_nothing_armed() -> None:
    """
    After a break, time may pass, and the source of a stream in a with-block is closed.
    """
    closed: list[bool] = []
    async with cancelable_stream(_numbers(closed), timeout=SHORT) as stream:
        async for _ in stream:
            break

    await sleep(2 * SHORT)

    assert closed == [True]
    assert current_operation() is None


async def test_no_item_that_was_fetched_is_lost() -> None:
    """
    The item that was fetched as the cancel came is handed over, and the partial results are all there.
    """
    token = CancelationToken()
    seen: list[int] = []

    async def source() -> AsyncIterator[int]:
        yield 1
        token.cancel()  # the cancel comes while this one is being fetched
        yield 2
        await sleep(LONG)
        yield 3

    stream = cancelable_stream(source(), token=token, buffer_partial=True)
    with pytest.raises(ManualCancelation):
        async for number in stream:
            seen.append(number)

    assert stream.partial == seen == [1, 2]


async def test_partial_results_survive_a_cancel_while_the_consumer_works() -> None:
    """
    What was handed over is there, although it is the consumer that was interrupted.
    """
    async with Cancelable(timeout=SHORT, raise_on_cancel=False) as operation:
        stream = operation.stream(_numbers([]), buffer_partial=True)
        async for _ in stream:
            if stream.count == 3:
                await sleep(LONG)

    assert stream.partial == [0, 1, 2]
    await stream.aclose()


async def _numbers(closed: list[bool]) -> AsyncIterator[int]:
    try:
        for number in range(1000):
            yield number
    finally:
        closed.append(True)


def _cancel_all(tokens: Iterable[CancelationToken]) -> None:
    for token in tokens:
        token.cancel()


def _alive(kind: type) -> set[int]:
    return {id(thing) for thing in gc.get_objects() if isinstance(thing, kind)}
