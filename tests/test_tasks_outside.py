"""Tasks that were started from within an operation's block, and live in a task group around it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import anyio
import pytest
from anyio import create_task_group, sleep, sleep_forever

from hother.cancelable import (
    Cancelable,
    CancelationError,
    ManualCancelation,
    TimeoutCancelation,
)


async def nothing() -> AsyncIterator[int]:
    await sleep_forever()
    yield 0


async def in_a_stream(operation: Cancelable) -> None:
    async for _ in operation.stream(nothing()):
        pass


async def in_a_wrapped_function(operation: Cancelable) -> None:
    await operation.wrap(sleep_forever)()


WAYS = [in_a_stream, in_a_wrapped_function]
Way = Callable[[Cancelable], Awaitable[None]]


async def ending(way: Way, operation: Cancelable, ends: list[tuple[type[CancelationError], float]]) -> None:
    try:
        await way(operation)
    except CancelationError as error:
        ends.append((type(error), anyio.current_time()))


@pytest.mark.parametrize("way", WAYS)
async def test_they_are_interrupted_by_a_cancel(way: Way) -> None:
    """
    The operation's scope does not interrupt them; what they do in its name, it does.
    """
    ends: list[tuple[type[CancelationError], float]] = []
    start = anyio.current_time()
    with anyio.move_on_after(100) as limit:
        async with create_task_group() as tasks:
            with pytest.raises(ManualCancelation):
                async with Cancelable() as operation:
                    tasks.start_soon(ending, way, operation, ends)
                    await sleep(1)
                    operation.cancel()
                    await sleep_forever()

    assert not limit.cancelled_caught
    assert ends == [(ManualCancelation, start + 1)]


@pytest.mark.parametrize("way", WAYS)
async def test_they_are_interrupted_by_the_deadline(way: Way) -> None:
    """
    Also if nobody listens to the operation's token.
    """
    ends: list[tuple[type[CancelationError], float]] = []
    start = anyio.current_time()
    with anyio.move_on_after(100) as limit:
        async with create_task_group() as tasks:
            with pytest.raises(TimeoutCancelation):
                async with Cancelable(timeout=2) as operation:
                    tasks.start_soon(ending, way, operation, ends)
                    await sleep_forever()

    assert not limit.cancelled_caught
    assert ends == [(TimeoutCancelation, start + 2)]


@pytest.mark.parametrize("way", WAYS)
async def test_inside_of_the_block_the_block_comes_first(way: Way) -> None:
    """
    A task in a task group of the block's own is interrupted by the block, which alone raises.
    """
    ends: list[tuple[type[CancelationError], float]] = []
    for cancel in (True, False):
        operation = Cancelable(timeout=1)
        with pytest.raises(ManualCancelation if cancel else TimeoutCancelation):
            async with operation, create_task_group() as tasks:
                tasks.start_soon(ending, way, operation, ends)
                await sleep(0.5)
                if cancel:
                    operation.cancel()
                await sleep_forever()
        assert operation.token.statistics().callbacks == 0

    assert ends == []


@pytest.mark.parametrize("protect", ["shield", "critical"])
async def test_tasks_of_a_protected_section_are_protected(protect: str) -> None:
    """
    What a shielded or critical section starts and waits for belongs to it.
    """
    seen: list[int] = []

    async def numbers() -> AsyncIterator[int]:
        for number in range(3):
            await sleep(1)
            yield number

    async def consume(operation: Cancelable) -> None:
        seen.extend([item async for item in operation.stream(numbers())])

    async def section(operation: Cancelable) -> None:
        async with create_task_group() as tasks:
            tasks.start_soon(consume, operation)
            await sleep(0.5)
            operation.cancel()

    with pytest.raises(ManualCancelation):
        async with Cancelable() as operation:
            if protect == "critical":
                await operation.critical(partial(section, operation))
            else:
                async with operation.shield():
                    await section(operation)
            await sleep_forever()

    assert seen == [0, 1, 2]


@pytest.mark.skipif(len(anyio.get_available_backends()) < 2, reason="there is one backend only")
@pytest.mark.real_time
async def test_the_loop_of_another_backend_is_no_place_in_the_block(anyio_backend_name: str) -> None:
    """
    A thread that a block has begun may run an event loop of its own, of either backend.
    """
    other = "trio" if anyio_backend_name == "asyncio" else "asyncio"
    started = anyio.Event()

    async def elsewhere(operation: Cancelable) -> None:
        operation.call_soon(started.set)
        with pytest.raises(ManualCancelation):
            await operation.wrap(sleep_forever)()

    async def in_a_thread(operation: Cancelable) -> None:
        await anyio.to_thread.run_sync(lambda: anyio.run(elsewhere, operation, backend=other))

    with pytest.raises(ManualCancelation):
        async with Cancelable() as operation, create_task_group() as tasks:
            tasks.start_soon(in_a_thread, operation)
            await started.wait()
            operation.cancel()
            await sleep_forever()
