"""Handlers that wait for 20 ms, 200 of them at a time, on real servers."""

from __future__ import annotations

from collections.abc import Iterator

from ._figures import Figure, at_least
from ._plan import Plan
from ._serving import Case, measure
from ._wrappings import available
from .throughput import FAST, PEERS, TRIO

SERVERS = (FAST, TRIO)
TARGET = at_least(0.95)


def run(plan: Plan) -> Iterator[Figure]:
    """Measure."""
    for server in plan.places(SERVERS[: plan.pick(full=2, quick=1, tiny=1)]):
        few = ("bare", "floor", "working floor", "ours")
        names = plan.among(available((*few, *plan.pick(full=PEERS, quick=(), tiny=())), server), "bare")
        target = TARGET if server == FAST else None
        for application in plan.pick(full=("starlette", "fastapi"), quick=("fastapi",), tiny=("fastapi",)):
            paths = dict.fromkeys(names, (application, "/wait"))
            subject = f"{application}, a handler that waits for 20 ms, 200 at a time"
            case = Case(subject, server, paths, target, connections=plan.pick(full=200, quick=200, tiny=10))
            if case.can_run:
                processes = plan.pick(full=4 if target else 1, quick=1, tiny=1)
                rounds, seconds = plan.pick(full=3, quick=3, tiny=1), plan.pick(full=1, quick=1, tiny=0.1)
                yield from measure(case, processes=processes, rounds=rounds, seconds=seconds)
