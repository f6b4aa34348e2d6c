"""What a request costs that is open and idle: 10,000 of them, in processes of their own."""

from __future__ import annotations

import gc
import subprocess
import sys
from typing import Any

import anyio
import psutil

from ._apps import build
from ._report import Series, arguments, keep, measure_in_turns, show

WRAPPINGS = ("bare", "floor", "ours", "ours, 30 s limit")


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


async def _open(wrapping: str, number: int) -> float:
    app = build("raw", wrapping)

    def scope() -> dict[str, Any]:
        return {"type": "http", "http_version": "1.1", "method": "GET", "path": "/hang", "headers": []}

    async with anyio.create_task_group() as tasks:
        peers = [_Idle() for _ in range(number)]
        scopes = [scope() for _ in range(number)]
        gc.collect()
        before = psutil.Process().memory_info().rss
        for peer, each in zip(peers, scopes, strict=True):
            tasks.start_soon(app, each, peer.receive, peer.send)
        await anyio.sleep(1)
        gc.collect()
        after = psutil.Process().memory_info().rss
        tasks.cancel_scope.cancel()
    return (after - before) / number


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] == "--one":
        backend, wrapping, number = sys.argv[2:]
        print(anyio.run(_open, wrapping, int(number), backend=backend))
        return
    options = arguments(__doc__, backends=("asyncio", "trio"), wrappings=WRAPPINGS, requests=10_000, rounds=3)
    figures = []
    for backend in options.backends:
        series = Series(f"memory per idle request on {backend}", "bytes", "bare")

        def once(wrapping: str, backend: str = backend) -> tuple[float]:
            command = [sys.executable, "-m", "benchmarks.memory", "--one", backend, wrapping]
            output = subprocess.run([*command, str(options.requests)], capture_output=True, check=True)
            return (float(output.stdout),)

        measure_in_turns([series], options.wrappings, options.rounds, once)
        show(series)
        figures.append(series)
    keep(options.json, figures)


if __name__ == "__main__":
    main()
