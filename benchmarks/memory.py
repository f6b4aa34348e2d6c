"""What requests cost that are open and idle: memory, and processor time; in processes of their own.

The *listener* is the least that can hear a client leave: a token, and a task that waits in the server's
``receive()``. The *working listener* is the least with which that ends the request.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from socket import SO_LINGER, SOL_SOCKET, socket
from time import process_time, sleep
from typing import Any

import anyio
import psutil

from tests.servers.child import KINDS
from tests.servers.process import running
from tests.servers.raw_client import http_request

from ._figures import Figure, Target, figures, in_turns
from ._plan import Plan
from ._worker import worker
from ._wrappings import build
from .in_process import scope

WRAPPINGS = ("bare", "listener", "working listener", "ours")
SERVER = "uvicorn-httptools-uvloop"
SPARE = 500
"""Files that a process has open besides its connections."""

MEMORY = Target(3 * 1024, of="difference")
IDLE = Target(0.5e-3, of="difference")
"""Of a second's processor time: what can be told from nothing."""


def run(plan: Plan) -> Iterator[Figure]:
    """Measure."""
    rounds, count = plan.pick(full=2, quick=1, tiny=1), plan.pick(full=10_000, quick=10_000, tiny=200)
    names = plan.among(WRAPPINGS, "bare")
    pause = plan.pick(full=3.0, quick=3.0, tiny=0.2)
    for loop in plan.places(("asyncio", "trio")[: plan.pick(full=2, quick=2, tiny=1)]):
        if find_spec(loop):
            yield from _in_process(loop, names, rounds, count, pause)
    if plan.places([SERVER]) and not KINDS[SERVER].missing:
        yield from _on_server(names, rounds, count)


# --- Without a server


def _in_process(loop: str, names: list[str], rounds: int, count: int, pause: float) -> Iterator[Figure]:
    def once(name: str) -> tuple[float, float]:
        # A new process each time: what one has freed, the next would take without asking for more.
        with worker("benchmarks.memory:measure") as process:
            memory, processor = process.ask(name, loop, count, pause)
            return memory, processor

    memory, processor = in_turns(names, rounds, once, warm=False)
    where, targets = f"{loop}, in process", {"ours": MEMORY}
    yield from figures(
        f"memory for each of {count:,} open requests",
        where,
        memory,
        "bare",
        targets=targets,
        bound="working listener",
        unit="B",
    )
    subject = f"processor time while {count:,} requests are open and idle"
    yield from figures(subject, where, processor, "bare", targets={"ours": IDLE}, unit="s/s")


def measure(wrapping: str, loop: str, count: int, pause: float) -> None:
    """Answer with the bytes of a request, and the processor time of all in a second; ends its worker."""
    anyio.run(_measure, wrapping, count, pause, backend=loop)


async def _measure(wrapping: str, count: int, pause: float) -> None:
    app = build("raw", wrapping)
    async with anyio.create_task_group() as tasks:
        clients = [_Idle() for _ in range(count)]
        scopes = [scope("/hang") for _ in range(count)]
        gc.collect()
        before = psutil.Process().memory_info().rss
        for client, each in zip(clients, scopes, strict=True):
            tasks.start_soon(app, each, client.receive, client.send)
        await _settle(pause)
        gc.collect()
        after = psutil.Process().memory_info().rss
        start = process_time()
        await anyio.sleep(pause)
        processor = process_time() - start
        # Ten thousand tasks would take longer to cancel than all of this took.
        print(json.dumps([(after - before) / count, processor / pause]), flush=True)
        os._exit(0)


async def _settle(pause: float) -> None:
    """Wait until requests are no longer new: what is done about that is over once, and is not idling."""
    for _ in range(10):
        start = process_time()
        await anyio.sleep(pause / 3)
        if process_time() - start < pause / 3 / 1000:
            break


class _Idle:
    """A server's side of a request that waits for ever."""

    def __init__(self) -> None:
        self._gone = anyio.Event()
        self._asked = False

    async def receive(self) -> dict[str, Any]:
        if self._asked:
            await self._gone.wait()
        self._asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: dict[str, Any]) -> None: ...


# --- On a server


def _on_server(names: list[str], rounds: int, count: int) -> Iterator[Figure]:
    with _many_files(count) as possible:
        (memory,) = in_turns(names, rounds, lambda name: (_resident(name, possible),), warm=False)
    subject = f"memory for each of {possible:,} open requests"
    targets = {"ours": MEMORY}
    yield from figures(subject, SERVER, memory, "bare", targets=targets, bound="working listener", unit="B")


def _resident(name: str, count: int) -> float:
    """Return how many bytes an open request takes in a server, its connection included."""
    with running(SERVER, f"benchmarks._wrappings:raw|{name}") as server:
        process = psutil.Process(server.pid)
        sockets = [_open(server.connect()) for _ in range(50)]  # warm
        sleep(0.5)
        before = process.memory_info().rss
        sockets += [_open(server.connect()) for _ in range(count)]
        sleep(1)
        after = process.memory_info().rss
        for sock in sockets:
            # Reset: ten thousand connections that linger would take all ports there are.
            sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        server.signal(9)  # it has nothing to finish
    return (after - before) / count


def _open(sock: socket) -> socket:
    http_request(sock, path="/hang")
    return sock


@contextmanager
def _many_files(count: int) -> Iterator[int]:
    """Let this process and its children have so many connections; tell how many it may be at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = count if hard == resource.RLIM_INFINITY else min(count, hard - SPARE)
    if most < count:
        print(f"{most:,} connections instead of {count:,}: `ulimit -Hn` is {hard:,}", file=sys.stderr)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most + SPARE), hard))
    try:
        yield most
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
