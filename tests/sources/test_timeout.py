"""The timeout source: delays and deadlines."""

from __future__ import annotations

from datetime import timedelta
from math import inf, nan
from typing import Any

import anyio
import pytest
from anyio import move_on_after, sleep

from hother.cancelable import Cancelation, CancelationReason, TimeoutSource

HOUR = 3600.0


@pytest.mark.parametrize("timeout", [HOUR, 3600, timedelta(hours=1)])
async def test_a_delay_counts_from_waiting(timeout: Any) -> None:
    """
    Not from when the source was made; and it can be used again.
    """
    source = TimeoutSource(timeout)

    for _ in range(2):
        await sleep(HOUR)
        start = anyio.current_time()

        cancelation = await source.wait()

        assert anyio.current_time() - start == HOUR
        assert cancelation == Cancelation(CancelationReason.TIMEOUT, "timed out after 3600 seconds")


async def test_a_deadline_is_a_time_on_the_clock() -> None:
    """
    One in the past comes at once.
    """
    source = TimeoutSource(deadline=anyio.current_time() + HOUR)
    end = anyio.current_time() + HOUR
    await sleep(HOUR / 2)

    for _ in range(2):
        cancelation = await source.wait()

        assert anyio.current_time() == end
        assert cancelation == Cancelation(CancelationReason.TIMEOUT, "the deadline passed")


@pytest.mark.parametrize(("timeout", "deadline", "end"), [(1, 2, 1), (2, 1, 1), (inf, 1, 1), (1, inf, 1)])
async def test_of_delay_and_deadline_the_earlier_counts(timeout: float, deadline: float, end: float) -> None:
    """
    Either may be infinite.
    """
    start = anyio.current_time()

    await TimeoutSource(timeout, deadline=start + deadline).wait()

    assert anyio.current_time() == start + end


async def test_an_infinite_timeout_never_comes() -> None:
    """
    It is a source that never fires, as others are.
    """
    with move_on_after(1000 * HOUR) as scope:
        await TimeoutSource(inf).wait()

    assert scope.cancelled_caught


def test_a_timeout_source_shows_its_times() -> None:
    """
    As it was made.
    """
    assert repr(TimeoutSource(5)) == "TimeoutSource(5)"
    assert repr(TimeoutSource(deadline=7)) == "TimeoutSource(deadline=7)"
    assert repr(TimeoutSource(5, deadline=7.5)) == "TimeoutSource(5, deadline=7.5)"
    assert repr(TimeoutSource(inf)) == "TimeoutSource(deadline=inf)"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, TypeError, "needs a timeout or a deadline"),
        ({"timeout": "1"}, TypeError, "timeout must be a number"),
        ({"timeout": -1}, ValueError, "timeout must not be negative"),
        ({"timeout": nan}, ValueError, "timeout must not be negative or NaN"),
        ({"deadline": "1"}, TypeError, "deadline must be a number"),
        ({"deadline": True}, TypeError, "deadline must be a number"),
        ({"deadline": nan}, ValueError, "deadline must not be NaN"),
    ],
)
def test_an_impossible_time_is_refused(arguments: Any, error: type[Exception], message: str) -> None:
    """
    When the source is made.
    """
    with pytest.raises(error, match=message):
        TimeoutSource(**arguments)
