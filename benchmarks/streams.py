"""Streams: how soon they end when their clients leave, and what an open one takes.

A thousand clients open a stream at once and leave at random moments. Then, in processes of their own that
take turns, so many idle streams are opened: of plain Starlette without the middleware, and of ours.
"""

from __future__ import annotations

import sys
from statistics import median

from tests.servers.crowd import ask_leftovers, leave_at_random, many_files
from tests.servers.process import running
from tests.servers.raw_client import http_request, open_response

APP = "tests.servers.streams_app:app"
PLAIN_APP = "tests.servers.streams_app:plain_app"
KINDS = ("uvicorn-asyncio", "hypercorn-trio")
CLIENTS = 1000
ROUNDS = 3
IDLE = (
    ("plain", PLAIN_APP, "Starlette's StreamingResponse, no middleware"),
    ("plain", APP, "Starlette's StreamingResponse, behind the middleware"),
    ("stream", APP, "cancelable_streaming_response"),
    ("sse", APP, "cancelable_sse_response, with heartbeat and send timeout"),
)


def memory(kind: str, path: str, app: str, clients: int) -> float:
    """Return how many KiB of the server's memory an idle stream takes."""
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
    return float((after - before) / clients / 1024)


def main() -> None:
    clients = int(sys.argv[1]) if len(sys.argv) > 1 else CLIENTS
    print(f"milliseconds from a client's leaving to its generator's end, {clients} clients at once")
    print(f"{'server':20} {'median':>9} {'90 %':>9} {'99 %':>9} {'maximum':>9} {'in 100 ms':>10}")
    for kind in KINDS:
        with running(kind, APP) as server:
            leave_at_random(server, "/crowd", "warm", 50, within=0.5)
            times = leave_at_random(server, "/crowd", "key", clients, within=10)
        shown = (median(times), times[len(times) * 9 // 10], times[len(times) * 99 // 100], times[-1])
        share = sum(time < 0.1 for time in times) / len(times)
        print(f"{kind:20}", *(f"{time * 1000:9.2f}" for time in shown), f"{share:10.1%}")
    print(f"KiB that an idle stream takes in the server, median of {ROUNDS} rounds of {clients}")
    for kind in KINDS:
        rounds = [[memory(kind, path, app, clients) for path, app, _ in IDLE] for _ in range(ROUNDS)]
        floor = median(values[0] for values in rounds)
        for number, (_, _, label) in enumerate(IDLE):
            value = median(values[number] for values in rounds)
            print(f"{kind:20} {value:7.1f} {value / floor:6.2f}x  {label}")


if __name__ == "__main__":
    main()
