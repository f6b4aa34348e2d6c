"""The stream simulator: its moods, and what it remembers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from math import inf
from typing import Any

import anyio
import pytest
from anyio import create_task_group, get_current_task, move_on_after, sleep

from hother.cancelable import TimeoutCancelation, cancelable_stream
from hother.cancelable.testing import StreamSimulator


async def items_of(source: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in source]


async def test_items_come_in_order_one_per_pause() -> None:
    """
    And it knows when each was handed over.
    """
    source = StreamSimulator("abc", pause=2)

    assert await items_of(source) == source.delivered == ["a", "b", "c"]
    assert source.delivered_at == [2, 4, 6]
    assert source.read_by == [get_current_task().id]
    assert source.has_ended
    assert not source.is_closed


async def test_the_same_seed_makes_the_same_delays() -> None:
    """
    Another one makes others; all within the bounds of the jitter.
    """

    async def delays(seed: int) -> list[float]:
        start = anyio.current_time()
        source = StreamSimulator(range(20), pause=1, jitter=0.5, burst=(1, 3), seed=seed)
        await items_of(source)
        times = [start, *source.delivered_at]
        return [round(after - before, 6) for before, after in pairwise(times)]

    first = await delays(1)

    assert first == await delays(1)
    assert first != await delays(2)
    assert all(delay == 0 or 0.5 <= delay <= 1.5 for delay in first)
    assert len(set(first)) > 5


async def test_items_of_a_burst_come_at_once() -> None:
    """
    The pause is between bursts.
    """
    source = StreamSimulator(range(6), pause=1, burst=3)

    await items_of(source)

    assert source.delivered_at == [1, 1, 1, 2, 2, 2]


async def test_a_stall_makes_an_item_late() -> None:
    """
    In the middle of a burst, too.
    """
    source = StreamSimulator(range(4), pause=1, burst=2, stalls={1: 3600})

    await items_of(source)

    assert source.delivered_at == [1, 3601, 3602, 3602]


async def test_a_stall_may_last_for_ever() -> None:
    """
    Only a cancelation ends it; no item is lost for it.
    """
    source = StreamSimulator(range(3), stalls={2: inf})

    with pytest.raises(TimeoutCancelation):
        await items_of(cancelable_stream(source, timeout=3600))

    assert source.delivered == [0, 1]
    assert source.interruptions == 1
    source.assert_closed()
    source.assert_closed(by=get_current_task().id)


async def test_an_item_whose_wait_was_interrupted_comes_next() -> None:
    """
    After the same pause.
    """
    source = StreamSimulator("ab", pause=10)
    with move_on_after(5):
        await anext(source)

    assert await anext(source) == "a"
    assert source.delivered_at == [15]
    assert source.interruptions == 1


async def test_it_fails_where_it_should() -> None:
    """
    And is over then.
    """
    source = StreamSimulator(range(5), fails_at=2, error=lambda: ConnectionResetError("gone"))

    with pytest.raises(ConnectionResetError, match="gone"):
        await items_of(source)

    assert source.delivered == [0, 1]
    assert source.has_ended
    assert await items_of(source) == []


async def test_closing_takes_its_time() -> None:
    """
    A second closing does nothing; there are no items any more.
    """
    source = StreamSimulator(range(5), closing=2)
    await anext(source)

    await source.aclose()

    assert anyio.current_time() == source.closed_at + 2  # type: ignore[operator]
    source.assert_closed()
    await source.aclose()
    assert len(source.closed_by) == 2
    assert await items_of(source) == []
    with pytest.raises(AssertionError, match="closed once"):
        source.assert_closed()


async def test_a_closing_that_is_interrupted_is_none() -> None:
    """
    The message tells what was wrong.
    """
    source = StreamSimulator(range(5), closing=2)
    with pytest.raises(AssertionError, match=r"0 items handed over to nobody, .* closed by nobody"):
        source.assert_closed()

    with move_on_after(1):
        await source.aclose()

    with pytest.raises(AssertionError, match="not to the end"):
        source.assert_closed()
    assert "open" in repr(source)


async def test_it_knows_in_which_task_it_was_closed() -> None:
    """
    By default that has to be one that read from it.
    """
    source = StreamSimulator(range(5))
    await anext(source)

    async with create_task_group() as tasks:
        tasks.start_soon(source.aclose)

    with pytest.raises(AssertionError, match=f"by task {get_current_task().id}; got: 1 items"):
        source.assert_closed()
    source.assert_closed(by=source.closed_by[0])
    assert "closed" in repr(source)


async def test_it_serves_one_reader_at_a_time() -> None:
    """
    Two that wait would each get half of the items.
    """
    source = StreamSimulator(range(5), pause=5)

    async with create_task_group() as tasks:
        tasks.start_soon(anext, source)
        await sleep(1)
        with pytest.raises(RuntimeError, match="two tasks"):
            await anext(source)

    assert source.delivered == [0]


async def test_a_stream_without_pauses_is_still_interrupted() -> None:
    """
    No pause is a checkpoint.
    """
    source = StreamSimulator(range(5), pause=0)
    with move_on_after(-1) as scope:
        await items_of(source)

    assert scope.cancelled_caught
    assert await items_of(source) == [0, 1, 2, 3, 4]
    assert "ended" in repr(source)


@pytest.mark.parametrize(
    "options",
    [{"pause": -1}, {"closing": -1}, {"jitter": 2}, {"jitter": -1}, {"burst": 0}, {"burst": (3, 1)}],
    ids=str,
)
def test_impossible_numbers_are_refused(options: dict[str, Any]) -> None:
    """
    Each message names what is wrong.
    """
    with pytest.raises(ValueError, match=next(iter(options))):
        StreamSimulator([1], **options)
