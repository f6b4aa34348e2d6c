"""Requests per second of real servers under full load, per second of processor time, and their latency."""

from __future__ import annotations

from collections.abc import Iterator

from ._figures import Figure, Target, at_least
from ._plan import Plan
from ._serving import Case, measure
from ._wrappings import OLD_RELEASE, available, block_paths

FAST, TRIO = "uvicorn-httptools-uvloop", "hypercorn-trio"
SERVERS = (FAST, TRIO, "uvicorn-httptools-asyncio", "hypercorn-asyncio")
APPLICATIONS = ("raw", "starlette", "fastapi")
PEERS = ("aiofence", "fastapi-disconnect", OLD_RELEASE)
ALL = ("bare", "pass-through", "floor", "working floor", "ours", "BaseHTTPMiddleware", *PEERS)
FEW = ("bare", "floor", "working floor", "ours")

TARGETS = {
    (FAST, "raw"): at_least(0.88),
    (FAST, "starlette"): at_least(0.93),
    (FAST, "fastapi"): at_least(0.95),
    **{(TRIO, application): at_least(0.90) for application in APPLICATIONS},
}
BLOCK_TARGET = at_least(0.90)


def run(plan: Plan) -> Iterator[Figure]:
    """Measure."""
    for case in (*_endpoints(plan), *_blocks(plan)):
        if case.can_run:
            processes = plan.pick(full=4 if case.target else 1, quick=1, tiny=1)
            rounds, seconds = plan.pick(full=3, quick=3, tiny=1), plan.pick(full=1, quick=1, tiny=0.1)
            yield from measure(case, processes=processes, rounds=rounds, seconds=seconds)


def _endpoints(plan: Plan) -> Iterator[Case]:
    """Yield each application on each server."""
    for server in plan.places(SERVERS[: plan.pick(full=4, quick=2, tiny=2)]):
        applications = APPLICATIONS if server in {FAST, TRIO} else ("fastapi",)
        for application in plan.pick(full=applications, quick=("raw", "fastapi"), tiny=("fastapi",)):
            # A server for each candidate takes its time: the peers are where they are most at home.
            is_fast = (server, application) == (FAST, "fastapi")
            is_whole = plan.pick(full=application == "fastapi", quick=is_fast, tiny=False)
            names = plan.among(available(ALL if is_whole else FEW, server), "bare")
            paths = dict.fromkeys(names, (application, "/"))
            target: Target | None = TARGETS.get((server, application))
            yield Case(f"{application}, one endpoint", server, paths, target)


def _blocks(plan: Plan) -> Iterator[Case]:
    """Yield FastAPI with the dependency and its block, beside a dependency of no use, and a block by hand."""
    for server in plan.places((FAST, TRIO) if plan.level == "full" else (FAST,)):
        names = plan.among(available(("bare", "floor", "ours", OLD_RELEASE), server), "bare")
        target = BLOCK_TARGET if server == FAST else None
        yield Case("fastapi, with the dependency and its block", server, block_paths(names), target)
