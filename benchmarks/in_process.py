"""What a middleware adds to a request, in processor time, without any server.

The garbage collector is off: it comes when it likes, and then takes long.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import cache
from importlib.util import find_spec
from time import process_time
from typing import Any

import anyio
from anyio import create_task_group

from ._apps import App
from ._figures import Figure, figures, in_turns
from ._plan import Plan
from ._worker import worker
from ._wrappings import OLD_RELEASE, available, block_paths, build

BATCH = 20
LOOPS = ("uvloop", "trio")
PEERS = ("aiofence", "fastapi-disconnect", OLD_RELEASE)
BLOCKS = ("bare", "floor", "ours", OLD_RELEASE)
FLOORS = ("floor", "working floor")
WRAPPINGS = ("bare", "pass-through", *FLOORS, "ours", "ours, 30 s limit", "BaseHTTPMiddleware", *PEERS)


def run(plan: Plan) -> Iterator[Figure]:
    """Measure."""
    rounds, requests = plan.pick(full=7, quick=5, tiny=1), plan.pick(full=1000, quick=600, tiny=20)
    applications = plan.pick(full=("raw", "starlette", "fastapi"), quick=("fastapi",), tiny=("fastapi",))
    for loop in plan.places(LOOPS[: plan.pick(full=2, quick=1, tiny=1)]):
        if find_spec(loop):
            few = plan.pick(full=WRAPPINGS, quick=WRAPPINGS, tiny=("bare", "ours", OLD_RELEASE))
            names = plan.among(available(few, loop), "bare")
            for application in applications:
                paths = dict.fromkeys(names, (application, "/"))
                yield from _beside_bare(loop, application, paths, rounds, requests)
            blocks = block_paths([name for name in names if name in BLOCKS])
            yield from _beside_bare(loop, "fastapi, with the block", blocks, rounds, requests)


def _beside_bare(
    loop: str, subject: str, paths: Mapping[str, tuple[str, str]], rounds: int, requests: int
) -> Iterator[Figure]:
    with ExitStack() as stack:
        workers = {name: stack.enter_context(worker("benchmarks.in_process:measure")) for name in paths}

        def once(name: str) -> tuple[float]:
            application, path = paths[name]
            return (workers[name].ask(application, name, loop, requests, 0, path),)

        (seconds,) = in_turns(paths, rounds, once)
    yield from figures(f"{subject}, one request in process", loop, seconds, "bare")


def measure(
    application: str, wrapping: str, loop: str, requests: int, idle: int = 0, path: str = "/"
) -> float:
    """Return how many seconds of processor time a request takes; called in a worker.

    Args:
        application: What is called.
        wrapping: What is around it.
        loop: The event loop.
        requests: How many of them are made.
        idle: How many others are open meanwhile, and wait.
        path: What is asked for.
    """
    gc.collect()
    gc.disable()
    backend, options = ("asyncio", {"use_uvloop": True}) if loop == "uvloop" else (loop, {})
    app = _built(application, wrapping)
    return anyio.run(_measured, app, requests, idle, path, backend=backend, backend_options=options)


_built = cache(build)


async def _measured(app: App, requests: int, idle: int, path: str) -> float:
    async with create_task_group() as others:
        for _ in range(idle):
            others.start_soon(serve, app, "/hang")
        if idle:
            await anyio.sleep(0.2)  # until they are no longer new
        started = process_time()
        for _ in range(requests // BATCH):
            async with create_task_group() as tasks:
                for _ in range(BATCH):
                    tasks.start_soon(serve, app, path)
        taken = process_time() - started
        others.cancel_scope.cancel()
    return taken / requests


class Peer:
    """A server's side of a request without a body, whose client stays until it has the response."""

    def __init__(self) -> None:
        self._is_read = self._is_answered = False
        self._answered: anyio.Event | None = None

    async def receive(self) -> dict[str, Any]:
        if not self._is_read:
            self._is_read = True
            return {"type": "http.request", "body": b"", "more_body": False}
        if not self._is_answered:
            self._answered = self._answered or anyio.Event()
            await self._answered.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self._is_answered = True
            if self._answered:
                self._answered.set()


def scope(path: str) -> dict[str, Any]:
    """Make the scope of a request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost"), (b"user-agent", b"benchmark"), (b"accept", b"*/*")],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 80),
        "state": {},
    }


async def serve(app: App, path: str) -> None:
    """Serve one request."""
    peer = Peer()
    await app(scope(path), peer.receive, peer.send)
