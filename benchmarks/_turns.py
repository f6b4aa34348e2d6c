"""Two pieces of code in one process that take turns."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import TypeAlias

from ._figures import Figure, Target, figure

Timed: TypeAlias = Callable[[], Awaitable[float]]


def per_call(function: Callable[[], object], calls: int) -> float:
    """Return the seconds that one call takes."""
    numbers = range(calls)
    start = perf_counter()
    for _ in numbers:
        function()
    return (perf_counter() - start) / calls


def calls_beside(
    subject: str,
    candidate: tuple[str, Callable[[], object]],
    floor: tuple[str, Callable[[], object]],
    *,
    rounds: int,
    calls: int,
    target: Target | None = None,
) -> Figure:
    """Compare two plain functions, each of which has a name."""
    gc.collect()
    pairs = [(per_call(candidate[1], calls), per_call(floor[1], calls)) for _ in range(rounds)]
    return figure(subject, "any", candidate[0], floor[0], pairs, target=target)


async def side_by_side(
    subject: str,
    where: str,
    candidate: tuple[str, Timed],
    floor: tuple[str, Timed],
    *,
    rounds: int,
    target: Target | None = None,
    bound: str = "",
) -> Figure:
    """Compare two functions that return how many seconds something took, each of which has a name."""
    await candidate[1](), await floor[1]()  # warm up
    pairs = [(await candidate[1](), await floor[1]()) for _ in range(rounds)]
    return figure(subject, where, candidate[0], floor[0], pairs, target=target, bound=bound)
