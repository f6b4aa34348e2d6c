"""On which terms a block may be interrupted. Most blocks have the usual ones, and share them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from ._cleanup import Cleanup


@final
@dataclass(frozen=True, slots=True)
class Terms:
    """When a block is interrupted, by whom, and who has to know."""

    grace: float = 0.0  #: from being cancelled to being interrupted, in seconds
    cleanup: Cleanup | None = None  #: what has to know when that is
    is_detached: bool = False  #: whether nothing around the block interrupts it


USUAL = Terms()
"""At once, by whatever is around, and nobody."""
