"""What real servers get done, bare and wrapped: ``nox -s benchmarks -- throughput --help``.

Each candidate has a server of its own, all on one processor, and only one of them has something to do at a
time. The load comes from another processor.

Requests per second are what counts; on a machine that has other things to do, the processor time that the
server takes for a request is the better measure. Its ratio is given upside down, so that 0.95 means in both
tables that 95 % of the requests are left.
"""

from __future__ import annotations

from contextlib import ExitStack

import psutil

from tests.servers.process import running

from ._apps import WRAPPINGS
from ._load import load, pin
from ._report import Series, arguments, keep, measure_in_turns, show


def measure(
    server: str,
    application: str,
    path: str,
    wrappings: list[str],
    *,
    connections: int,
    rounds: int,
    seconds: float,
) -> list[Series]:
    """Measure one application on one server, in all of the wrappings."""
    title = f"{application} {path} on {server}, {connections} connections"
    speed = Series(f"{title}: requests per second", "/s", "bare")
    effort = Series(f"{title}: requests per second of processor time", "/s", "bare")
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(running(server, f"benchmarks._apps:{application}|{name}"))
            for name in wrappings
        }
        for process in servers.values():
            pin(process.pid, 0)

        def once(name: str) -> tuple[float, float]:
            before = _processor_seconds(servers[name].pid)
            done = load(servers[name].port, path, connections, seconds)
            used = _processor_seconds(servers[name].pid) - before
            return done.requests / done.seconds, done.requests / used

        measure_in_turns([speed, effort], wrappings, rounds, once)
    show(speed)
    show(effort)
    return [speed, effort]


def _processor_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def main() -> None:
    options = arguments(
        __doc__,
        servers=("uvicorn-httptools-uvloop", "hypercorn-trio"),
        applications=("raw", "starlette", "fastapi"),
        wrappings=tuple(WRAPPINGS),
        path="/",
        connections=32,
        rounds=7,
        seconds=2.0,
    )
    figures: list[Series] = []
    for server in options.servers:
        for application in options.applications:
            figures += measure(
                server,
                application,
                options.path,
                options.wrappings,
                connections=options.connections,
                rounds=options.rounds,
                seconds=options.seconds,
            )
    keep(options.json, figures)


if __name__ == "__main__":
    main()
