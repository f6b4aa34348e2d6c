"""One cancel, n waiting: until the last of them has ended."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from time import perf_counter
from typing import TypeAlias

import anyio
from anyio import CancelScope, create_task_group, sleep_forever

from hother.cancelable import Cancelable, CancelationToken

from ._figures import Figure, at_most, figure, figures
from ._plan import Plan

BASE = 1_000
"""The number of operations that larger numbers are compared with."""

Ways: TypeAlias = dict[str, Callable[[int], Awaitable[float]]]

OURS, BOUND, FLOOR = "a token", "the contract alone", "each scope by hand"

MANY = 10_000
"""From here on, a round takes seconds."""

TARGET = at_most(1.3)
LINEAR = at_most(2.0)
"""Of a hundred times as many, each may take twice as long: a time that grows with the square takes a
hundred times as long."""


async def fan_out(
    where: str, plan: Plan, cancel_contracts: Callable[[int], Awaitable[float]]
) -> AsyncIterator[Figure]:
    """Measure one token beside as many scopes by hand, and many operations beside a thousand.

    Args:
        where: The event loop.
        plan: How often.
        cancel_contracts: Does the same with nothing but what an operation must do.
    """
    numbers = plan.pick(
        full=(1, 10, 100, 1_000, 10_000, 100_000), quick=(1, 100, 1_000, 10_000), tiny=(1, 1_000, 2_000)
    )
    if where == "uvloop":
        numbers = tuple(n for n in numbers if n < MANY)  # the same tasks as on asyncio
    ways: Ways = {OURS: cancel_operations, BOUND: cancel_contracts, FLOOR: cancel_scopes}
    each: dict[int, dict[str, list[float]]] = {}
    for n in numbers:
        rounds = plan.pick(full=max(3, min(60, 60_000 // n)), quick=max(2, min(5, 10_000 // n)), tiny=1)
        values = await _values(ways, n, rounds)
        each[n] = {name: [value / n for value in values[name]] for name in values}
        subject, targets = f"one cancel, {n:,} waiting", {OURS: TARGET}
        for it in figures(subject, where, values, FLOOR, targets=targets, bound=BOUND)[:-1]:
            yield it
    for n in [n for n in numbers if n > BASE]:
        for way in (OURS, BOUND):
            yield _growth(where, n, way, each)


def _growth(where: str, n: int, way: str, each: dict[int, dict[str, list[float]]]) -> Figure:
    """Compare what each of *n* takes with what each of a thousand takes."""
    pairs = zip(each[n][way], each[BASE][way], strict=False)  # of many, there are fewer rounds
    subject, candidate, base = "one cancel, for each that waits", f"{n:,} waiting", f"{BASE:,} waiting"
    if way != OURS:
        return figure(subject, where, f"{way}, {candidate}", f"{way}, {base}", pairs)
    return figure(subject, where, candidate, base, pairs, target=LINEAR, bound=f"{BOUND}, {candidate}")


async def _values(ways: Ways, n: int, rounds: int) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(0 if n < MANY else 1, rounds + 1):
        for name, way in ways.items():
            value = await way(n)
            if number:  # the first round warms up
                values[name].append(value)
    return values


async def cancel_operations(n: int) -> float:
    """Return how many seconds a token takes."""
    token = CancelationToken()

    async def wait() -> None:
        async with Cancelable(tokens=(token,), raise_on_cancel=False):
            await sleep_forever()

    return await until_all_ended(n, wait, token.cancel)


async def cancel_scopes(n: int) -> float:
    """Return how many seconds it takes to cancel scopes that somebody has put into a list."""
    scopes: list[CancelScope] = []

    async def wait() -> None:
        with CancelScope() as scope:
            scopes.append(scope)
            await sleep_forever()

    def cancel() -> None:
        for scope in scopes:
            scope.cancel()

    return await until_all_ended(n, wait, cancel)


async def until_all_ended(n: int, wait: Callable[[], Awaitable[None]], cancel: Callable[[], object]) -> float:
    """Have so many tasks wait, and return how many seconds after the cancel the last of them has ended."""
    async with create_task_group() as tasks:
        for _ in range(n):
            tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        gc.collect()  # else it is a matter of luck how many full collections fall into what is measured
        start = perf_counter()
        cancel()
    return perf_counter() - start
