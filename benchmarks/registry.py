"""What a registry costs: per operation, and as more and more of them run. Ratios, within one run."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import anyio

from hother.cancelable import (
    Cancelable,
    CancelationToken,
    OperationContext,
    OperationRegistry,
    OperationStatus,
    Transition,
)

FEW, MANY = 1_000, 100_000
LATEST = 1_000


def seconds(call: Callable[[], object], times: int) -> float:
    """Return how long one call takes, in seconds: the best of three rounds."""
    rounds = []
    for _ in range(3):
        start = perf_counter()
        for _ in range(times):
            call()
        rounds.append((perf_counter() - start) / times)
    return min(rounds)


def starting(number: int) -> Transition:
    context = OperationContext(
        str(number), f"name {number}", OperationStatus.RUNNING, None, None, None, float(number), 0.0, {}
    )
    return Transition(context, OperationStatus.PENDING, CancelationToken())


def costs(running: int) -> dict[str, float]:
    """Return what calls cost while so many operations run, in seconds."""
    registry = OperationRegistry()
    for number in range(running):
        registry.on_transition(starting(number))
    middle = str(running // 2)
    ids = iter(range(running))
    return {
        "get": seconds(lambda: registry.get(middle), 1000),
        "in": seconds(lambda: middle in registry, 1000),
        "list(id=...)": seconds(lambda: registry.list(id=middle), 1000),
        "cancel": seconds(lambda: registry.cancel(str(next(ids))), 300),
        "list(name=...)": seconds(lambda: registry.list(name=f"name {middle}"), 1),
        "list()": seconds(registry.list, 1),
        "cancel_all()": seconds(registry.cancel_all, 1),
    }


async def per_operation(**options: object) -> float:
    """Return how long an operation takes that does nothing, in seconds."""
    rounds = []
    for _ in range(5):
        start = perf_counter()
        for _ in range(LATEST):
            async with Cancelable(**options):  # type: ignore[arg-type]
                pass
        rounds.append((perf_counter() - start) / LATEST)
    return min(rounds)


async def watched() -> tuple[float, float, float]:
    """Return what an operation costs alone, in a registry, and with a listener besides, in seconds."""
    alone = await per_operation()
    with OperationRegistry() as registry:
        listed = await per_operation()
        async with registry.events():
            return alone, listed, await per_operation()


def main() -> None:
    for backend in anyio.get_available_backends():
        alone, listed, heard = anyio.run(watched, backend=backend)
        print(f"{backend}: an operation that does nothing takes {alone * 1e6:.1f} microseconds;")
        print(f"  in a registry {listed / alone:.1f} times that, with a listener {heard / alone:.1f} times")
    print(f"\n{'microseconds':16} {FEW:>12,} {MANY:>12,} {'ratio':>8}   while so many run")
    many = costs(MANY)
    for name, cost in costs(FEW).items():
        print(f"{name:16} {cost * 1e6:12.1f} {many[name] * 1e6:12.1f} {many[name] / cost:8.1f}")


if __name__ == "__main__":
    main()
