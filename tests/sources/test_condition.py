"""The condition source: asking again and again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from datetime import timedelta
from math import inf, nan
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from hother.cancelable import Cancelation, CancelationReason, ConditionSource


class Answer:
    """Something that can be awaited, and is no coroutine."""

    def __init__(self, value: bool) -> None:
        self.value = value

    def __await__(self) -> Generator[Any, Any, bool]:
        yield from checkpoint().__await__()
        return self.value


@pytest.mark.parametrize("kind", ["plain", "async", "awaitable"])
async def test_a_predicate_is_asked_until_it_returns_true(kind: str) -> None:
    """
    At once, and again after each interval, whatever kind of function it is.
    """
    asked: list[float] = []

    def has_come() -> bool:
        asked.append(anyio.current_time() - start)
        return len(asked) == 4

    async def has_come_async() -> bool:
        await checkpoint()
        return has_come()

    predicates: dict[str, Callable[[], bool | Awaitable[bool]]] = {
        "plain": has_come,
        "async": has_come_async,
        "awaitable": lambda: Answer(has_come()),
    }
    start = anyio.current_time()

    cancelation = await ConditionSource(predicates[kind], interval=2).wait()

    assert asked == [0, 2, 4, 6]
    assert cancelation.reason is CancelationReason.CONDITION


async def test_the_record_names_the_predicate() -> None:
    """
    A function by its name, anything else by its repr.
    """

    class Full:
        def __call__(self) -> bool:
            return True

        def __repr__(self) -> str:
            return "<full>"

    source = ConditionSource(Full())

    assert await source.wait() == Cancelation(CancelationReason.CONDITION, "<full> came true")
    assert repr(source) == "ConditionSource(<full>)"
    assert repr(ConditionSource(checkpoint)).startswith("ConditionSource(checkpoint")  # type: ignore[arg-type]


async def test_what_a_predicate_raises_is_not_caught() -> None:
    """
    A condition that cannot be checked does not pass for one that does not hold.
    """
    with pytest.raises(ZeroDivisionError):
        await ConditionSource(lambda: 1 / 0 > 1).wait()


@pytest.mark.parametrize("interval", [0, -1, nan, inf, timedelta(0), None])
def test_an_impossible_interval_is_refused(interval: Any) -> None:
    """
    Without a pause the loop would do nothing else; after an infinite one nobody would ask again.
    """
    with pytest.raises(ValueError, match="interval must"):
        ConditionSource(bool, interval)


def test_a_condition_needs_a_function_and_a_time() -> None:
    """
    A value instead of a function would never change.
    """
    with pytest.raises(TypeError, match="predicate must be callable, got True"):
        ConditionSource(True)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="interval must be a number"):
        ConditionSource(bool, "1")  # type: ignore[arg-type]
