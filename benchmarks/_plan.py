"""How long to measure, and what of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

T = TypeVar("T")

Level = Literal["full", "quick", "tiny"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for on the command line."""

    level: Level = "full"
    where: tuple[str, ...] = ()  #: event loops and servers, by any part of their names; all if empty
    candidates: tuple[str, ...] = ()  #: by their names; all if empty

    def pick(self, *, full: T, quick: T, tiny: T) -> T:
        """Return what suits: good figures, figures to look at, or only a run that reaches every line."""
        return {"full": full, "quick": quick, "tiny": tiny}[self.level]

    def places(self, names: Iterable[str]) -> list[str]:
        """Return those event loops or servers that are wanted."""
        return [name for name in names if not self.where or any(part in name for part in self.where)]

    def among(self, names: Iterable[str], reference: str) -> list[str]:
        """Return those candidates that are wanted, and the one that they are compared with."""
        return [name for name in names if not self.candidates or name in self.candidates or name == reference]
