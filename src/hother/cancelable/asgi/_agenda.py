"""What will become of a request later, unless it ends before."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import NamedTuple

from .._core._reasons import Cancelation


class Item(NamedTuple):
    """One thing to do."""

    when: float  #: on the loop's clock, in seconds
    action: Callable[[Cancelation], None]
    event: Cancelation  #: what the action is called with


class Agenda:
    """The things to do about one request, most of which have none.

    A commitment puts them all off: nothing is due before it ends.
    """

    def __init__(self) -> None:
        self._items: list[Item] = []
        self.committed_until = -inf

    def add(self, when: float, action: Callable[[Cancelation], None], event: Cancelation) -> None:
        """Have *action* called with *event*, at the time *when*."""
        self._items.append(Item(when, action, event))

    @property
    def next_due(self) -> float:
        """When the next thing is due; infinity if there is none."""
        return max(min((item.when for item in self._items), default=inf), self.committed_until)

    def take_due(self, now: float) -> list[Item]:
        """Take out what is due, in the order in which it became due."""
        if now < self.committed_until:
            return []
        due = sorted((item for item in self._items if item.when <= now), key=lambda item: item.when)
        self._items = [item for item in self._items if item.when > now]
        return due
