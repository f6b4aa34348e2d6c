"""What becomes of a cost as there is more of something: ratios of many to few."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from importlib.util import find_spec
from time import perf_counter
from typing import Any

import anyio

from hother.cancelable import Cancelable, CancelationToken

from ._figures import Figure, at_most, figures, in_turns
from ._plan import Plan
from ._turns import calls_beside, side_by_side
from ._worker import worker
from .core import LOOPS

CONSTANT = at_most(1.5)
"""Of what should cost the same, however many others there are. The rest is the processor's caches."""


def run(plan: Plan) -> Iterator[Figure]:
    """Measure. What grows with the number of waiting operations is in `core`, the registry in `registry`."""
    if not plan.where:
        yield from token_figures(plan)
    for where in plan.places(("asyncio", "trio")):
        if find_spec(where):
            yield from anyio.run(nested_figures, where, plan, **LOOPS[where])
            yield from request_figures(where, plan)


def token_figures(plan: Plan) -> Iterator[Figure]:
    """Compare a token that nothing is linked to with one that much is linked to."""
    many = plan.pick(full=100_000, quick=100_000, tiny=1_000)
    effort: dict[str, Any] = {
        "rounds": plan.pick(full=15, quick=7, tiny=1),
        "calls": plan.pick(full=20_000, quick=10_000, tiny=100),
    }
    token, crowded = CancelationToken(), CancelationToken()
    children = [crowded.child() for _ in range(many)]
    crowd = (f"beside {many:,}", crowded.child)
    yield calls_beside("link a token and unlink it", crowd, ("alone", token.child), target=CONSTANT, **effort)
    crowd = (f"beside {many:,}", partial(_call_back, crowded))
    alone = ("alone", partial(_call_back, token))
    yield calls_beside("add a callback and remove it", crowd, alone, **effort)
    del children


def _call_back(token: CancelationToken) -> None:
    token.add_callback(print)()


async def nested_figures(where: str, plan: Plan) -> list[Figure]:
    """Compare a block in many others with a block in none."""
    return [it async for it in _nested(where, plan)]


async def _nested(where: str, plan: Plan) -> AsyncIterator[Figure]:
    depth, number = plan.pick(full=100, quick=100, tiny=10), plan.pick(full=1_000, quick=500, tiny=10)

    async def alone() -> float:
        start = perf_counter()
        for _ in range(number):
            async with Cancelable():
                pass
        return (perf_counter() - start) / number

    async def deep() -> float:
        async with AsyncExitStack() as stack:
            for _ in range(depth):
                await stack.enter_async_context(Cancelable())
            return await alone()

    rounds = plan.pick(full=9, quick=5, tiny=1)
    names = (f"in {depth} others", deep), ("in none", alone)
    yield await side_by_side("enter and leave a block", where, *names, rounds=rounds)


def request_figures(where: str, plan: Plan) -> Iterator[Figure]:
    """Compare a request while many others are open and idle with one that is alone."""
    counts = plan.pick(full=(0, 1_000, 10_000), quick=(0, 1_000), tiny=(0, 100))
    requests, rounds = plan.pick(full=1000, quick=400, tiny=20), plan.pick(full=5, quick=3, tiny=1)
    names = {f"beside {count:,} idle": count for count in counts}
    with ExitStack() as stack:
        workers = {
            it: stack.enter_context(worker("benchmarks.in_process:measure")) for it in ("bare", "ours")
        }
        for wrapping, process in workers.items():

            def once(name: str, wrapping: str = wrapping, process: Any = process) -> tuple[float]:
                return (process.ask("raw", wrapping, where, requests, names[name]),)

            (seconds,) = in_turns(names, rounds, once)
            yield from figures(
                f"a request in process, {wrapping}", where, seconds, f"beside {counts[0]} idle"
            )
