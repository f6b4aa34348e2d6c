"""What was seen of one request, and what is expected of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ._answers import Ending

LIMIT = 0.5
"""How long a handler may run on after what should end it, in seconds; a busy machine included."""


class Fate(str, Enum):
    """How a handler may end."""

    DISCONNECT = "disconnect"
    TIMEOUT = "timeout"
    MANUAL = "manual"
    SHUTDOWN = "shutdown"
    FINISHED = "finished"  #: by itself
    ERROR = "error"  #: its own
    NATIVE = "native"  #: the server cancelled it, and we have no part in it
    ANY = "any"

    __str__ = str.__str__


@dataclass(slots=True)
class Observation:
    """What was seen of one request."""

    began: bool = False
    how: str | None = None  #: its handler ended: ``finished``, or the name of an exception
    reason: str | None = None  #: of its token
    after: float | None = (
        None  #: how long after its cause the handler (or else its request) ended, in seconds
    )
    left: str | None = None  #: how the application's call ended, as the server sees it
    status: int | None = None
    size: int = 0  #: of the answer's body, in bytes
    ending: Ending = Ending.NOT_AWAITED
    tracebacks: list[str] = field(default_factory=list[str])
    behind: dict[str, Any] = field(default_factory=dict[str, Any])  #: what was left behind
    notes: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])  #: kind and sentence

    @property
    def fate(self) -> Fate | None:
        """How the handler ended; ``None`` if it did not."""
        if self.how is None:
            return None
        if self.how == "finished":
            return Fate.FINISHED
        if self.reason is not None:
            return Fate(self.reason) if self.reason in set(Fate) else Fate.ANY
        # A generator that its caller left suspended hears of the end when it is collected.
        return Fate.NATIVE if "Cancelled" in self.how or self.how == "GeneratorExit" else Fate.ERROR


@dataclass(frozen=True, slots=True)
class Expectation:
    """What is expected of one request, on every server."""

    fate: Fate = Fate.FINISHED
    status: int | None = None  #: ``None``: none in particular
    endings: frozenset[Ending] = frozenset(Ending)
    within: float = LIMIT
    may_log: bool = False  #: a traceback is as it should be
    leaves: frozenset[str] = frozenset({"returned"})  #: how the application's call may end

    def problems(self, seen: Observation) -> Iterator[tuple[str, str]]:
        """Yield what is not as expected: the kind of problem, and a sentence."""
        if not seen.began and self.fate is not Fate.ANY:
            yield "began", "the handler never began"
            yield from seen.notes
            return
        yield from self._about_the_handler(seen)
        yield from self._about_the_answer(seen)
        if seen.tracebacks and not self.may_log:
            yield "log", f"the server logged a traceback: {seen.tracebacks[-1]}"
        if seen.behind and seen.left is not None:
            yield "behind", f"something was left behind: {seen.behind}"
        yield from seen.notes

    def _about_the_handler(self, seen: Observation) -> Iterator[tuple[str, str]]:
        fate = seen.fate
        if self.fate is Fate.ANY:
            yield from self._about_its_time(seen, "request", has_ended=seen.left is not None)
        elif fate in (self.fate, None):
            yield from self._about_its_time(seen, "handler", has_ended=fate is not None)
        else:
            yield "fate", f"the handler ended with {fate} ({seen.how}), not with {self.fate}"
        if fate is not None and seen.left is None and self.fate is not Fate.ANY:
            yield "left", "the handler ended, and its request did not"
        if seen.left not in self.leaves | {None}:
            yield "left", f"{seen.left} got through to the server"

    def _about_its_time(self, seen: Observation, who: str, *, has_ended: bool) -> Iterator[tuple[str, str]]:
        if not has_ended:
            yield "ended", f"the {who} ran on"
        elif self.fate is not Fate.FINISHED and seen.after is not None and seen.after > self.within:
            yield "late", f"the {who} ended after {seen.after:.2f} s, {self.within:g} s are allowed"

    def _about_the_answer(self, seen: Observation) -> Iterator[tuple[str, str]]:
        if self.status is not None and seen.status != self.status:
            yield "status", f"the client got {seen.status or 'no answer'}, not {self.status}"
        if seen.ending not in self.endings:
            yield "answer", f"the client's answer was {seen.ending}"
