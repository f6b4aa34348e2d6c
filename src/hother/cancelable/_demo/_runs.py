"""A run: one client and one handler, and when each did what. A board: all runs of a demo."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import final

import anyio

from ._journal import Event


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a client does, and what is promised about its handler."""

    name: str
    request: str  #: for the eye, as is the note
    note: str
    work: str  #: the work of the handler that counts, by its name in the journal
    client: Callable[[Run, int], Awaitable[None]]  #: plays the client, on a port
    finishes: bool = False  #: the handler must do all of its work, rather than be stopped
    success: str = "finished"  #: what to call that
    goes_on: float = 0.0  #: how long it goes on at least without the middleware, in seconds


@dataclass(slots=True, eq=False)
class Run:
    """One client and its handler. Times are of ``time.monotonic()``, in seconds."""

    scenario: Scenario
    backend: str
    guarded: bool  #: whether the middleware is there
    began_at: float | None = None  #: when the handler began
    left_at: float | None = None  #: when the client hung up
    ended_at: float | None = None  #: when the handler stopped
    how: str | None = None  #: what the handler ended with: "finished", or the name of an exception
    done: int = 0  #: units of work
    total: int = 0  #: units of work; 0 if nobody knows
    failure: str | None = None  #: what went wrong for the client
    has_begun: anyio.Event = field(default_factory=anyio.Event)
    has_ended: anyio.Event = field(default_factory=anyio.Event)

    @property
    def id(self) -> str:
        """What the client and the journal call it."""
        return f"{self.backend}-{self.scenario.name}-{'with' if self.guarded else 'without'}"

    @property
    def is_finished(self) -> bool:
        """Whether the handler did all of its work."""
        return self.how == "finished" and self.done >= self.total

    @property
    def overrun(self) -> float | None:
        """How long the handler worked for a client that had left, until now or until it stopped."""
        if self.left_at is None:
            return None
        return (time.monotonic() if self.ended_at is None else self.ended_at) - self.left_at

    def take(self, event: Event) -> None:
        """Take note of an event of the handler."""
        self.done, self.total = event["done"], event["total"]
        if event["event"] == "begins":
            self.began_at = event["at"]
            self.has_begun.set()
        elif event["event"] == "ends":
            self.ended_at, self.how = event["at"], event["how"]
            self.has_ended.set()


@dataclass(frozen=True, slots=True)
class Pair:
    """The same scenario on the same backend, with the middleware and without it."""

    guarded: Run
    plain: Run

    @property
    def scenario(self) -> Scenario:
        """The scenario of both."""
        return self.guarded.scenario


@final
class Board:
    """All runs of a demo.

    Args:
        backends: On which backends the scenarios are played.
        scenarios: What is played on each.
    """

    def __init__(self, backends: Iterable[str], scenarios: Iterable[Scenario]) -> None:
        self.pairs = [
            Pair(Run(scenario, backend, guarded=True), Run(scenario, backend, guarded=False))
            for backend in backends
            for scenario in scenarios
        ]
        self._by_id = {run.id: run for run in self.runs()}

    def pairs_on(self, backend: str) -> list[Pair]:
        """Return the pairs of runs on one backend."""
        return [pair for pair in self.pairs if pair.guarded.backend == backend]

    def runs(self) -> Iterator[Run]:
        """Yield each run."""
        for pair in self.pairs:
            yield pair.guarded
            yield pair.plain

    def take(self, event: Event) -> None:
        """Give an event to the run that it belongs to, if there is one."""
        run = self._by_id.get(event["run"])
        if run is not None and run.scenario.work == event["name"]:
            run.take(event)

    def waste(self, *, guarded: bool) -> float:
        """Return how long handlers worked for clients that had left, all together, in seconds."""
        return sum(
            max(run.overrun or 0.0, 0.0)
            for run in self.runs()
            if run.guarded is guarded and not run.scenario.finishes
        )
