"""Real servers under full load: what they get done, and how long each request takes.

All servers are on one processor, and only one of them has something to do at a time. The load comes from
another processor.

Each candidate has several servers, which take turns: of two processes that run the very same code, one may be
seven percent faster than the other for as long as it lives, by the luck of where things lie in its memory.

Requests per second are what counts; on a machine that has other things to do, the processor time that the
server takes for a request is the better measure. It is given as requests per second of processor time, so
that 0.95 means in both that 95 % of the requests are left.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle

import psutil

from tests.servers.child import KINDS
from tests.servers.process import ServerProcess, running

from ._figures import Figure, Target, figures, in_turns
from ._load import load, pin


@dataclass(frozen=True, slots=True)
class Case:
    """An application on a server, under several wrappings."""

    subject: str
    server: str  #: a key of `KINDS`
    paths: Mapping[str, tuple[str, str]]  #: for each candidate: its application, and the path
    target: Target | None = None  #: of ours, for the requests per second
    connections: int = 32

    @property
    def can_run(self) -> bool:
        """Whether the server is installed."""
        return not KINDS[self.server].missing


def measure(case: Case, *, processes: int, rounds: int, seconds: float) -> list[Figure]:
    """Measure all candidates of a case, beside the bare application.

    Args:
        case: The case.
        processes: How many servers each candidate has.
        rounds: How often each of them is measured.
        seconds: For how long.
    """
    with ExitStack() as stack:
        servers = {name: cycle([_start(stack, case, name) for _ in range(processes)]) for name in case.paths}

        def once(name: str) -> tuple[float, float, float, float]:
            server = next(servers[name])
            before = _processor_seconds(server.pid)
            done = load(server.port, case.paths[name][1], case.connections, seconds)
            used = _processor_seconds(server.pid) - before
            return done.requests / done.seconds, done.requests / max(used, 0.01), done.p50, done.p99

        in_turns(case.paths, processes, once, warm=False)
        speed, effort, p50, p99 = in_turns(case.paths, rounds * processes, once, warm=False)
    targets = {} if case.target is None else {"ours": case.target}
    subject, where = case.subject, case.server
    return [
        *figures(f"{subject}: requests", where, speed, "bare", targets=targets, bound="floor", unit="/s"),
        *figures(f"{subject}: requests per processor time", where, effort, "bare", unit="/s"),
        *figures(f"{subject}: latency, median", where, p50, "bare"),
        *figures(f"{subject}: latency, 99 %", where, p99, "bare"),
    ]


def _start(stack: ExitStack, case: Case, name: str) -> ServerProcess:
    application, _ = case.paths[name]
    server = stack.enter_context(running(case.server, f"benchmarks._wrappings:{application}|{name}"))
    pin(server.pid, 0)
    return server


def _processor_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
