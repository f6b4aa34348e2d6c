"""Cancel at every checkpoint: run a coroutine again and again, and cancel where it waits for the nth time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from functools import partial
from types import coroutine
from typing import Any, TypeVar

T = TypeVar("T")


@coroutine
def cancelling_at(
    number: int, cancel: Callable[[], object], work: Coroutine[Any, Any, T]
) -> Generator[Any, Any, tuple[T, int]]:
    """Run *work*, and call *cancel* as it is about to wait for the nth time. Tells how often it waited."""
    waits = 0
    resume: Callable[[], Any] = partial(work.send, None)
    while True:
        try:
            trap = resume()
        except StopIteration as end:
            return end.value, waits
        waits += 1
        if waits == number:
            cancel()
        try:
            value = yield trap
        except BaseException as error:
            resume = partial(work.throw, error)
        else:
            resume = partial(work.send, value)


async def every_checkpoint(attempt: Callable[[int], Awaitable[int]]) -> AsyncIterator[int]:
    """Make attempts, cancelled at the 1st, 2nd, ... wait, until one is over before that.

    An attempt gets the number of the wait, and returns how often it waited, or 0 if it was cancelled.
    """
    number, waits = 0, 0
    while number == 0 or waits == 0 or number <= waits:
        number += 1
        assert number < 200
        waits = await attempt(number)
        yield number
