"""One cancel, n waiting: until the last of them has ended."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from time import perf_counter

import anyio
from anyio import CancelScope, create_task_group, sleep_forever

from hother.cancelable import Cancelable, CancelationToken

from ._figures import Figure, at_most, figure
from ._plan import Plan

BASE = 1_000
"""The number of operations that larger numbers are compared with."""

TARGET = at_most(1.3)
LINEAR = at_most(2.0)
"""Of a hundred times as many, each may take twice as long; if the time grew with the square, it were a hundred."""


async def fan_out(where: str, plan: Plan) -> AsyncIterator[Figure]:
    """Measure one token beside as many scopes by hand, and many operations beside a thousand."""
    numbers = plan.pick(
        full=(1, 10, 100, 1_000, 10_000, 100_000), quick=(1, 100, 1_000, 10_000), tiny=(1, 1_000, 2_000)
    )
    ours: dict[int, list[float]] = {}
    for n in numbers:
        rounds = plan.pick(full=max(3, min(15, 50_000 // n)), quick=5, tiny=1)
        await cancel_operations(n), await cancel_scopes(n)  # warm up
        pairs = [(await cancel_operations(n), await cancel_scopes(n)) for _ in range(rounds)]
        ours[n] = [value / n for value, _ in pairs]
        yield figure(f"one cancel, {n:,} waiting", where, "a token", "each scope by hand", pairs, target=TARGET)
    for n in numbers:
        if n > BASE:
            names = (f"{n:,} waiting", f"{BASE:,} waiting")
            pairs = list(zip(ours[n], ours[BASE], strict=False))
            yield figure("one cancel, for each that waits", where, *names, pairs, target=LINEAR)


async def cancel_operations(n: int) -> float:
    """Return how many seconds a token takes."""
    token = CancelationToken()

    async def wait() -> None:
        async with Cancelable(tokens=(token,), raise_on_cancel=False):
            await sleep_forever()

    return await _until_all_ended(n, wait, token.cancel)


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

    return await _until_all_ended(n, wait, cancel)


async def _until_all_ended(
    n: int, wait: Callable[[], Awaitable[None]], cancel: Callable[[], object]
) -> float:
    gc.collect()
    async with create_task_group() as tasks:
        for _ in range(n):
            tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        start = perf_counter()
        cancel()
    return perf_counter() - start
