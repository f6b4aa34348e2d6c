"""How long a handler runs on after its client has left, on a server that has other things to do.

Each handler waits in its library's own way. The floor is a handler that does nothing but wait for the
server to say that the client has left; nobody can know sooner.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from time import monotonic, sleep

from tests.servers.child import KINDS
from tests.servers.process import ServerProcess, running
from tests.servers.raw_client import hang_up, http_request

from ._figures import Figure, Target, figure, percentile
from ._leaving import PATHS
from ._load import pin, steady_load
from ._plan import Plan
from ._wrappings import OLD_RELEASE, available

SERVERS = ("uvicorn-httptools-uvloop", "hypercorn-trio", "hypercorn-asyncio")
CANDIDATES = ("bare", "ours", "polling", "aiofence", "fastapi-disconnect", OLD_RELEASE)
FLOOR = "a handler that only listens"
RATE = 200
"""How many other requests there are in a second."""

PATIENCE = 1.0
"""After how long a handler counts as one that never ends, in seconds."""

MEDIAN, HIGH = Target(1e-3, of="value"), Target(5e-3, of="value")


def run(plan: Plan) -> Iterator[Figure]:
    """Measure."""
    rounds, tries = plan.pick(full=2, quick=2, tiny=1), plan.pick(full=100, quick=40, tiny=3)
    for server in plan.places(SERVERS[: plan.pick(full=3, quick=2, tiny=1)]):
        if not KINDS[server].missing:
            some = plan.pick(full=CANDIDATES, quick=CANDIDATES, tiny=("bare", "ours"))
            names = plan.among(available(some, server), "bare")
            times = {name: _times(server, name, rounds, tries) for name in names}
            yield from _figures(server, times)


def _figures(server: str, times: dict[str, list[list[float]]]) -> Iterator[Figure]:
    for number, target in ((50, MEDIAN), (99, HIGH)):
        subject = f"from a client's leaving to its handler's end, {'median' if number == 50 else '99 %'}"
        for name, rounds in times.items():
            pairs = [
                (percentile(own, number), percentile(floor, number))
                for own, floor in zip(rounds, times["bare"], strict=True)
            ]
            every = sorted(time for each in rounds for time in each)
            yield figure(
                *(subject, server, FLOOR if name == "bare" else name, FLOOR, pairs),
                target=target if name == "ours" else None,
                bound=FLOOR if name == "ours" else "",
                percentiles=[percentile(every, part) for part in range(101)] if number == 50 else (),
            )


def _times(kind: str, name: str, rounds: int, tries: int) -> list[list[float]]:
    """Return how many seconds later each handler had ended, by rounds."""
    with running(kind, f"benchmarks._wrappings:leaving|{name}") as server:
        pin(server.pid, 0)
        path = PATHS.get(name, "/sleep")
        _leave(server, path, "warm")
        with steady_load(server.port, "/", RATE, seconds=60):
            sleep(0.5)
            return [_round(server, path, f"{number}", tries) for number in range(rounds)]


def _round(server: ServerProcess, path: str, key: str, tries: int) -> list[float]:
    times = []
    for number in range(tries):
        times.append(_leave(server, path, f"{key}-{number}"))
        if math.isnan(times[-1]):
            return [math.nan] * tries
    return times


def _leave(server: ServerProcess, path: str, key: str) -> float:
    """Have a client leave; return how many seconds later its handler has ended."""
    with server.connect() as sock:
        http_request(sock, path=f"{path}?{key}")
        server.wait_event("running", key)
        sleep(0.03)  # at work, no longer new
        left = monotonic()
        hang_up(sock)
    try:
        return server.wait_event("stopped", key, timeout=PATIENCE).at - left
    except AssertionError:
        return math.nan
