"""Listening to a registry: bounded, in any loop, and gone at once."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest
from anyio import CancelScope, create_task_group, fail_after, move_on_after, wait_all_tasks_blocked

from hother.cancelable import (
    Cancelable,
    OperationEvents,
    OperationRegistry,
    OperationStatus,
    Progress,
    Transition,
)
from tests.sweep import cancelling_at, every_checkpoint

RUNNING, COMPLETED = OperationStatus.RUNNING, OperationStatus.COMPLETED
HOUR = 3600.0


def listeners(registry: OperationRegistry) -> int:
    return len(registry._listeners)


async def run(registry: OperationRegistry, *names: str) -> None:
    for name in names:
        async with Cancelable(name=name, observers=[registry]):
            pass


async def take(events: OperationEvents, number: int) -> list[str]:
    taken: list[str] = []
    while len(taken) < number:
        event = await events.__anext__()
        taken.append(f"{event.context.name} {event.context.status}")
    return taken


async def test_a_listener_hears_all_from_when_it_was_made() -> None:
    """
    Transitions and progress, in order, those before it first asked included.
    """
    registry = OperationRegistry()
    await run(registry, "before")

    async with registry.events() as events:
        async with Cancelable(name="a", observers=[registry]) as operation:
            await operation.report_progress("half", {"percent": 50})
        heard = [await anext(events) for _ in range(3)]

    first, second, third = heard
    assert isinstance(first, Transition)
    assert isinstance(second, Progress)
    assert isinstance(third, Transition)
    assert (first.previous, first.context.status) == (OperationStatus.PENDING, RUNNING)
    assert (second.message, second.metadata) == ("half", {"percent": 50})
    assert third.context.status is COMPLETED
    assert first.at <= second.at <= third.at


async def test_each_listener_hears_what_it_wants() -> None:
    """
    There may be several, and each filters for itself.
    """
    registry = OperationRegistry()

    async with registry.events(name="a") as some, registry.events(status=COMPLETED) as ends:
        await run(registry, "a", "b")

        assert await take(some, 2) == ["a running", "a completed"]
        assert await take(ends, 2) == ["a completed", "b completed"]
        for events in (some, ends):
            with move_on_after(HOUR) as scope:
                await anext(events)
            assert scope.cancelled_caught


async def test_a_listener_that_waits_is_woken() -> None:
    """
    By operations of its own loop, one event after the other.
    """
    registry = OperationRegistry()
    heard: list[str] = []

    async def listen() -> None:
        async with registry.events() as events:
            heard.extend(await take(events, 4))

    async with create_task_group() as tasks:
        tasks.start_soon(listen)
        for name in "ab":
            await wait_all_tasks_blocked()
            await run(registry, name)

    assert heard == ["a running", "a completed", "b running", "b completed"]


async def test_a_slow_listener_loses_the_oldest() -> None:
    """
    And is told how many it lost, also while it looks at none.
    """
    registry = OperationRegistry()

    async with registry.events(buffer=3) as events:
        await run(registry, "a")
        assert events.dropped == 0
        assert await take(events, 1) == ["a running"]
        await run(registry, "b", "c")
        assert events.dropped == 2
        assert "3 waiting, 2 dropped" in repr(events)

        assert await take(events, 3) == ["b completed", "c running", "c completed"]
        assert events.dropped == 2
        await run(registry, "d")
        assert await take(events, 2) == ["d running", "d completed"]
        assert events.dropped == 2


async def test_leaving_is_at_once() -> None:
    """
    By a break out of the block; without a block, as soon as the iterator is no longer used.
    """
    registry = OperationRegistry()

    async with registry.events() as events:
        await run(registry, "a")
        async for _ in events:
            break
        assert listeners(registry) == 1
    assert listeners(registry) == 0
    assert "closed" in repr(events)
    assert [event async for event in events] == []
    await events.aclose()

    forgotten = registry.events()
    await run(registry, "b")
    async for _ in forgotten:
        break
    del forgotten
    gc.collect()
    assert listeners(registry) == 0


async def test_closing_ends_a_loop_that_waits() -> None:
    """
    Another task closes, and the loop is over.
    """
    registry = OperationRegistry()
    events = registry.events()
    ended: list[bool] = []

    async def listen() -> None:
        async for _ in events:
            pytest.fail("there was nothing to hear")
        ended.append(True)

    async with create_task_group() as tasks:
        tasks.start_soon(listen)
        await wait_all_tasks_blocked()
        await events.aclose()

    assert ended == [True]


async def test_what_comes_while_it_is_closed_is_not_heard() -> None:
    """
    Another thread may be just about to tell.
    """
    registry = OperationRegistry()
    events = registry.events()

    async with Cancelable(observers=[registry]):
        pass
    event = await anext(events)
    await events.aclose()
    events.hear(event)

    assert [event async for event in events] == []


async def test_a_listener_that_is_just_collected_hears_nothing() -> None:
    """
    Its reference may be dead before the registry knows.
    """
    registry = OperationRegistry()
    events = registry.events()
    reference = next(iter(registry._listeners._listeners.values()))
    del events
    registry._listeners._listeners[object()] = reference

    await run(registry, "a")


async def test_it_belongs_to_one_task_at_a_time() -> None:
    """
    Two would take each other's events, and wake-ups.
    """
    events = OperationRegistry().events()

    async with create_task_group() as tasks:
        tasks.start_soon(partial(anext, events))
        await wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await anext(events)
        tasks.cancel_scope.cancel()


async def test_a_flood_of_events_leaves_room_for_others() -> None:
    """
    Each step is a checkpoint, although there is always a next event.
    """
    registry = OperationRegistry()
    steps: list[int] = []

    async with registry.events() as events:
        await run(registry, "a", "b", "c")
        with CancelScope() as scope:
            async for _ in events:
                steps.append(len(steps))
                scope.cancel()

    assert steps == [0]


async def test_events_and_wake_ups_of_one_wait_are_told_once() -> None:
    """
    However many events come while the listener sleeps, its loop is woken once.
    """
    registry = OperationRegistry()
    events = registry.events()
    woken: list[object] = []
    original = events._waiter

    class Counting(dict[None, Any]):
        def pop(self, key: None, *default: Any) -> Any:
            waiter = super().pop(key, *default)
            if waiter is not None:
                woken.append(waiter)
            return waiter

    events._waiter = Counting(original)
    async with create_task_group() as tasks:
        tasks.start_soon(take, events, 6)
        await wait_all_tasks_blocked()
        for name in "abc":
            async with Cancelable(name=name, observers=[registry]):
                pass

    assert len(woken) == 1


async def test_what_comes_just_before_it_waits_is_not_missed() -> None:
    """
    Between looking into the queue and sleeping, another thread may tell, and find nobody to wake.
    """
    registry = OperationRegistry()
    events, other = registry.events(), registry.events()
    await run(registry, "a")
    event = await anext(other)
    assert await take(events, 2) == ["a running", "a completed"]

    class Interrupted(dict[None, Any]):
        def __setitem__(self, key: None, waiter: Any) -> None:
            events.hear(event)  # too early: there is no waiter yet
            super().__setitem__(key, waiter)

    events._waiter = Interrupted()

    with fail_after(HOUR):
        assert await anext(events) is event


async def test_a_cancelation_anywhere_loses_no_event() -> None:
    """
    Cancelled at each of its waits, a listener has heard a part, and the rest is still there.
    """

    async def attempt(number: int) -> int:
        registry = OperationRegistry()
        heard: list[str] = []

        async def listen(scope: CancelScope) -> int:
            _, waits = await cancelling_at(number, scope.cancel, follow())
            return waits

        async def follow() -> None:
            while len(heard) < 6:
                heard.extend(await take(events, 1))

        async def speak() -> None:
            for name in "abc":
                await wait_all_tasks_blocked()
                await run(registry, name)

        waits = 0
        async with registry.events() as events:
            async with create_task_group() as tasks:
                tasks.start_soon(speak)
                with CancelScope() as scope:
                    waits = await listen(scope)
            assert events._waiter == {}
            rest = await take(events, 6 - len(heard))
        assert heard + rest == [f"{name} {status}" for name in "abc" for status in ("running", "completed")]
        assert events.dropped == 0
        assert listeners(registry) == 0
        return 0 if scope.cancelled_caught else waits

    assert len([number async for number in every_checkpoint(attempt)]) > 6


# --- Other threads, other loops


def in_thread(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function)
    thread.start()
    return thread


@pytest.mark.real_time
async def test_a_listener_is_woken_by_another_loop() -> None:
    """
    At once, on whatever backends the two run, although its own loop is idle.
    """
    registry = OperationRegistry()

    for backend in anyio.get_available_backends():

        def work(backend: str = backend) -> None:
            async def later() -> None:
                await anyio.sleep(0.05)
                await run(registry, "a")

            anyio.run(later, backend=backend)

        async with registry.events() as events:
            started_at = anyio.current_time()
            thread = in_thread(work)
            with fail_after(5):
                assert await take(events, 2) == ["a running", "a completed"]
            # The deadline wakes the loop, too: a lost wake-up would look like a late success.
            assert anyio.current_time() - started_at < 3
            await anyio.to_thread.run_sync(thread.join)


@pytest.mark.parametrize("backends", [(a, b) for a in ("asyncio", "trio") for b in ("asyncio", "trio")])
def test_two_loops_listen_to_one_registry(backends: tuple[str, str]) -> None:
    """
    Each in its own thread, each to everything.
    """
    if not set(backends) <= set(anyio.get_available_backends()):
        pytest.skip("Trio is not installed")
    registry = OperationRegistry()
    ready, heard = threading.Barrier(3), list[list[str]]()

    async def listen() -> None:
        async with registry.events() as events:
            await anyio.to_thread.run_sync(ready.wait)
            with fail_after(10):
                heard.append(await take(events, 40))

    threads = [in_thread(partial(anyio.run, listen, backend=backend)) for backend in backends]
    ready.wait()
    anyio.run(run, registry, *map(str, range(20)), backend=backends[0])
    for thread in threads:
        thread.join()

    expected = [f"{name} {status}" for name in range(20) for status in ("running", "completed")]
    assert heard == [expected, expected]
    assert listeners(registry) == 0


def test_a_listener_whose_loop_has_ended_harms_nobody() -> None:
    """
    Events come to its queue, and nobody is woken.
    """
    registry = OperationRegistry()
    events = registry.events()

    async def listen() -> None:
        with move_on_after(0):
            await anext(events)

    anyio.run(listen)
    anyio.run(run, registry, "a")

    assert anyio.run(take, events, 2) == ["a running", "a completed"]
