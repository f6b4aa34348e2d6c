"""What a registry costs: per operation, and as more and more of them run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from time import perf_counter
from typing import Any

import anyio

from hother.cancelable import (
    Cancelable,
    CancelationToken,
    OperationContext,
    OperationRegistry,
    OperationStatus,
    Transition,
)

from ._figures import Figure, figure, figures
from ._plan import Plan

FEW = 1_000


def run(plan: Plan) -> Iterator[Figure]:
    """Measure."""
    for where in plan.places(anyio.get_available_backends()):
        yield from anyio.run(operation_figures, where, plan, backend=where)
    if not plan.where:
        yield from growth_figures(plan)


# --- Per operation


async def operation_figures(where: str, plan: Plan) -> list[Figure]:
    """Compare an operation that nobody watches with one in a registry, and one that is listened to."""
    number, rounds = plan.pick(full=1_000, quick=1_000, tiny=10), plan.pick(full=9, quick=5, tiny=1)

    async def alone() -> float:
        start = perf_counter()
        for _ in range(number):
            async with Cancelable():
                pass
        return (perf_counter() - start) / number

    async def listed() -> float:
        with OperationRegistry():
            return await alone()

    async def heard() -> float:
        with OperationRegistry() as registry:
            async with registry.events():
                return await alone()

    ways: dict[str, Callable[[], Awaitable[float]]] = {
        "alone": alone,
        "in a registry": listed,
        "and listened to": heard,
    }
    values: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            values[name].append(await way())
    return figures("an operation that does nothing", where, values, "alone")


# --- As there are more


def growth_figures(plan: Plan) -> Iterator[Figure]:
    """Compare what calls cost while many operations run with what they cost while few do."""
    many = plan.pick(full=100_000, quick=20_000, tiny=2_000)
    pairs: dict[str, list[tuple[float, float]]] = {}
    for _ in range(plan.pick(full=3, quick=3, tiny=1)):
        few = costs(FEW)
        for name, cost in costs(many).items():
            pairs.setdefault(name, []).append((cost, few[name]))
    for name, values in pairs.items():
        yield figure(f"registry.{name}", "any", f"{many:,} running", f"{FEW:,} running", values)


def costs(running: int) -> dict[str, float]:
    """Return what calls cost while so many operations run, in seconds."""
    registry = OperationRegistry()
    for number in range(running):
        registry.on_transition(starting(number))
    middle = str(running // 2)
    ids = iter(range(running))
    return {
        "get(id)": seconds(lambda: registry.get(middle), 1000),
        "list(id=…)": seconds(lambda: registry.list(id=middle), 1000),
        "cancel(id)": seconds(lambda: registry.cancel(str(next(ids))), 300),
        "list(name=…)": seconds(lambda: registry.list(name=f"name {middle}"), 1),
        "list()": seconds(registry.list, 1),
        "cancel_all()": seconds(registry.cancel_all, 1),
    }


def seconds(call: Callable[[], Any], times: int) -> float:
    """Return how long one call takes, in seconds: the best of three rounds."""
    rounds = []
    for _ in range(3):
        start = perf_counter()
        for _ in range(times):
            call()
        rounds.append((perf_counter() - start) / times)
    return min(rounds)


def starting(number: int) -> Transition:
    """Make the news that an operation has started."""
    context = OperationContext(
        str(number), f"name {number}", OperationStatus.RUNNING, None, None, None, float(number), 0.0, {}
    )
    return Transition(context, OperationStatus.PENDING, CancelationToken())
