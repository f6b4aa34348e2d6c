"""How the latest operations have ended, as far as that was not long ago."""

from __future__ import annotations

from itertools import count
from operator import attrgetter
from time import monotonic
from typing import NamedTuple, final

from .._core._operation import OperationContext


class Ended(NamedTuple):
    """One operation that has ended."""

    number: int  #: the how manieth
    at: float  #: when, in seconds of `time.monotonic`
    context: OperationContext


@final
class History:
    """A ring of so many places, each of which is written to by whoever is next, in any thread.

    Args:
        size: How many operations to remember at most.
        age: For how long, in seconds.
    """

    __slots__ = ("_age", "_looked_over_at", "_numbers", "_ring", "_size")

    def __init__(self, size: int, age: float) -> None:
        self._size = size
        self._age = age
        self._numbers = count()
        self._ring: dict[int, Ended] = {}
        self._looked_over_at = monotonic()

    def add(self, at: float, context: OperationContext) -> None:
        """Remember how an operation ended."""
        if self._size:
            number = next(self._numbers)
            self._ring[number % self._size] = Ended(number, at, context)
            # Now and then, so that it costs next to nothing: to let go of what is too old to be shown.
            if at - self._looked_over_at > self._age / 10:
                self._drop_old()

    def contexts(self) -> list[OperationContext]:
        """Return how operations ended, in that order."""
        self._drop_old()
        return [ended.context for ended in sorted(self._ring.copy().values(), key=attrgetter("number"))]

    def _drop_old(self) -> None:
        self._looked_over_at = monotonic()
        oldest = self._looked_over_at - self._age
        for ended in list(self._ring.values()):
            if ended.at < oldest:
                place = ended.number % self._size
                dropped = self._ring.pop(place, None)
                if dropped is not None and dropped is not ended:  # somebody was faster, and took the place
                    self._ring.setdefault(place, dropped)
