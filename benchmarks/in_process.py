"""What the middleware adds to a request, in microseconds of processor time, without any server.

The garbage collector is off: it comes when it likes, and then takes long.
"""

from __future__ import annotations

import gc
from functools import partial
from importlib.util import find_spec
from time import process_time
from typing import Any

import anyio
from anyio import create_task_group

from ._apps import WRAPPINGS, build
from ._report import Series, arguments, keep, measure_in_turns, show

BATCH = 20


class _Peer:
    async def receive(self) -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: dict[str, Any]) -> None: ...


def _scope(path: str) -> dict[str, Any]:
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


async def _serve(app: Any, path: str) -> None:
    peer = _Peer()
    await app(_scope(path), peer.receive, peer.send)


async def _microseconds(app: Any, path: str, requests: int) -> float:
    started = process_time()
    for _ in range(requests // BATCH):
        async with create_task_group() as tasks:
            for _ in range(BATCH):
                tasks.start_soon(_serve, app, path)
    return (process_time() - started) / requests * 1e6


def main() -> None:
    loops = ("asyncio", "trio") + (("uvloop",) if find_spec("uvloop") else ())
    options = arguments(
        __doc__,
        loops=loops,
        applications=("raw", "starlette", "fastapi"),
        wrappings=tuple(WRAPPINGS),
        path="/",
        rounds=15,
        requests=1000,
    )
    gc.disable()
    figures = []
    for loop in options.loops:
        for application in options.applications:
            series = Series(f"{application} {options.path} in process, on {loop}", "µs", "bare")
            apps = {name: build(application, name) for name in options.wrappings}

            def once(name: str, loop: str = loop, apps: dict[str, Any] = apps) -> tuple[float]:
                gc.collect()
                measure = partial(_microseconds, apps[name], options.path, options.requests)
                backend, settings = ("asyncio", {"use_uvloop": True}) if loop == "uvloop" else (loop, {})
                return (anyio.run(measure, backend=backend, backend_options=settings),)

            measure_in_turns([series], options.wrappings, options.rounds, once)
            show(series)
            figures.append(series)
    keep(options.json, figures)


if __name__ == "__main__":
    main()
