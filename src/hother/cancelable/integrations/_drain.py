"""Reading on for a client who has left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import iscoroutinefunction
from math import inf
from typing import Any

from .._core._timeouts import seconds


@dataclass(frozen=True, slots=True)
class Drain:
    """Have a stream's generator run on after its client has left: its items are dropped, and looked at.

    For what comes last and is needed all the same, such as the frame of an LLM's answer that says
    what it has cost.

    Args:
        limit: How long to read on, in seconds; then the generator is interrupted. It is sooner if the time
            limit of the operation or of the request ends before, or the server begins to stop.
        until: A plain function, called with every item, before and after the client has left. Once it has
            returned true, nothing more is waited for.

    Raises:
        TypeError: If *limit* is not a number, or *until* not a plain function.
        ValueError: If *limit* is negative or NaN.
    """

    limit: float
    until: Callable[[Any], object] | None = None

    def __post_init__(self) -> None:
        limit = seconds(self.limit, "limit")
        object.__setattr__(self, "limit", inf if limit is None else limit)
        if self.until is not None and (not callable(self.until) or iscoroutinefunction(self.until)):
            raise TypeError(f"until must be a plain function, got {self.until!r}")
