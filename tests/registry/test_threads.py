"""One registry, many threads: nothing is lost, nothing is counted twice, nobody waits for anybody."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import anyio
import anyio.lowlevel
import pytest

from hother.cancelable import Cancelable, OperationRegistry, OperationStatus

THREADS = 4
ROUNDS = 150


@pytest.fixture(autouse=True)
def restless() -> Iterator[None]:
    """
    Threads that take turns as often as they can.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def in_threads(work: Callable[[int], object], *others: Callable[[], object]) -> None:
    """Do the work in several threads, and the others again and again meanwhile; raise what any raises."""
    done = threading.Event()

    def again_and_again(other: Callable[[], object]) -> None:
        while not done.is_set():
            other()

    with ThreadPoolExecutor(THREADS + len(others)) as pool:
        helpers = [pool.submit(again_and_again, other) for other in others]
        try:
            list(pool.map(work, range(THREADS)))
        finally:
            done.set()
        for helper in helpers:
            helper.result()


@pytest.mark.parametrize("shared", [False, True], ids=["own ids", "one id for all"])
def test_all_are_counted_whoever_looks_on(shared: bool) -> None:
    """
    Loops in several threads run operations, while others list, count, cancel and prune.
    """
    registry = OperationRegistry(history=50, history_age=0.01)
    events = registry.events(buffer=10 * THREADS * ROUNDS)

    async def work(number: int) -> None:
        for step in range(ROUNDS):
            operation_id = "7" if shared else f"{number}-{step}"
            async with Cancelable(
                operation_id=operation_id, name=str(number), observers=[registry], raise_on_cancel=False
            ):
                found = registry.get(operation_id)
                assert found is not None
                assert found.id == operation_id
                assert operation_id in registry
                if step % 3 == 0:
                    registry.cancel_all(name=str(number))
                    await anyio.lowlevel.checkpoint()

    def look() -> None:
        assert len(registry.list()) <= THREADS
        assert all(context.status is OperationStatus.RUNNING for context in registry.list())
        assert len(registry.history()) <= 50

    in_threads(lambda number: anyio.run(work, number), look, registry.statistics, lambda: events.dropped)

    statistics = registry.statistics()
    assert (statistics.running, statistics.ended) == (0, THREADS * ROUNDS)
    assert statistics.by_status[OperationStatus.CANCELLED] == THREADS * len(range(0, ROUNDS, 3))
    assert registry._live._by_id == registry._live._doubles == {}
    assert (len(events._queue), events.dropped) == (2 * THREADS * ROUNDS, 0)


def test_a_small_buffer_drops_and_counts_whoever_tells() -> None:
    """
    What is heard and what was dropped is all that there was.
    """
    registry = OperationRegistry()
    heard: list[object] = []

    async def work() -> None:
        for _ in range(ROUNDS):
            async with Cancelable(observers=[registry]):
                pass

    async def listen() -> int:
        events = registry.events(buffer=5)
        async with events, anyio.create_task_group() as tasks:

            async def follow() -> None:
                async for event in events:
                    heard.append(event)

            tasks.start_soon(follow)
            await anyio.to_thread.run_sync(in_threads, lambda _: anyio.run(work))
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        return events.dropped

    dropped = anyio.run(listen)

    assert len(heard) + dropped == 2 * THREADS * ROUNDS
    assert len(heard) == len(set(map(id, heard)))
