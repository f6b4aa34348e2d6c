"""A scenario: a script for a client, and what must come of it on every server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from ._observation import Expectation
from ._stage import Stage

Script: TypeAlias = Callable[[Stage], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A script, and what must come of it."""

    group: str
    name: str  #: unique, as ``way/moment``
    title: str
    play: Script
    expected: Expectation
    needs: frozenset[str] = frozenset()  #: the abilities of a server
    has_control: bool = True  #: whether the application without the middleware can play it
    needs_shutdown: bool = False  #: whether it ends its server
