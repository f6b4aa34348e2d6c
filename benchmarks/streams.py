"""Streams: how soon they end when their clients leave, and what an open one takes.

A thousand clients open a stream at once and leave at random moments. Beside it stands what no stream can
beat: as many clients of a bare handler that does nothing but wait until the server says that they left.
Then, on servers of their own that take turns, so many idle streams are opened: of plain Starlette without
the middleware, and of ours.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.servers.child import KINDS
from tests.servers.crowd import ask_leftovers, leave_at_random, many_files
from tests.servers.process import running
from tests.servers.raw_client import http_request, open_response

from ._figures import Figure, figure, figures, in_turns, percentile
from ._plan import Plan

APP = "tests.servers.streams_app:app"
PLAIN_APP = "tests.servers.streams_app:plain_app"
SERVERS = ("uvicorn-asyncio", "hypercorn-trio")
PLAIN = "Starlette's, no middleware"
IDLE = {
    PLAIN: ("plain", PLAIN_APP),
    "Starlette's, behind the middleware": ("plain", APP),
    "cancelable_streaming_response": ("stream", APP),
    "cancelable_sse_response": ("sse", APP),
}


def run(plan: Plan) -> Iterator[Figure]:
    """Measure."""
    clients = plan.pick(full=1_000, quick=300, tiny=10)
    rounds = plan.pick(full=2, quick=1, tiny=1)
    names = plan.pick(full=tuple(IDLE), quick=(PLAIN, "cancelable_sse_response"), tiny=())
    for server in plan.places(SERVERS[: plan.pick(full=2, quick=2, tiny=1)]):
        if not KINDS[server].missing:
            yield from _leaving(server, clients, within=plan.pick(full=6.0, quick=4.0, tiny=0.3))
            if names:
                yield from _memory(server, names, clients, rounds)


def _leaving(server: str, clients: int, within: float) -> Iterator[Figure]:
    """Yield how long generators run on once their clients have left, beside the bare handler."""
    with running(server, PLAIN_APP) as process:
        floor = leave_at_random(process, "/floor", "key", clients, within=within)
    with running(server, APP) as process:
        times = leave_at_random(process, "/crowd", "key", clients, within=within)
    subject = "from a client's leaving to its generator's end"
    for number in (50, 90, 99, 100):
        pair = (percentile(times, number), percentile(floor, number))
        name = f"one of {clients:,}, {_PARTS.get(number, f'{number} %')}"
        every = [percentile(times, part) for part in range(101)] if number == 50 else ()
        yield figure(subject, server, name, "a bare handler's", [pair], percentiles=every)


_PARTS = {50: "median", 100: "the slowest"}


def _memory(server: str, names: tuple[str, ...], clients: int, rounds: int) -> Iterator[Figure]:
    (memory,) = in_turns(names, rounds, lambda it: (_resident(server, *IDLE[it], clients),), warm=False)
    subject = f"memory for each of {clients:,} open streams"
    yield from figures(subject, server, memory, PLAIN, unit="B")


def _resident(kind: str, path: str, app: str, clients: int) -> float:
    """Return how many bytes of the server's memory an idle stream takes."""
    with running(kind, app) as server, many_files():
        for _ in range(3):  # warm
            ask_leftovers(server)
        before = ask_leftovers(server)["resident"]
        sockets = []
        for _ in range(clients):
            sockets.append(server.connect())
            http_request(sockets[-1], path=f"/idle/{path}")
            open_response(sockets[-1]).read1()
        after = ask_leftovers(server)["resident"]
        for sock in sockets:
            sock.close()
    return float((after - before) / clients)
