"""How one stream is sent, and how it ends: what a `Delivery` goes by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any, Literal, TypeAlias

from .._core._reasons import Cancelation
from ._drain import Drain
from ._regroup import Bytes

Ending: TypeAlias = Literal["truncate", "complete"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a stream is sent, and how it ends. Those who make one document and check it."""

    encode: Callable[[Any], Bytes]
    chunk_size: int | None = None
    flush_after: float = inf
    heartbeat: bytes = b""
    heartbeat_interval: float = inf
    send_timeout: float | None = None
    farewell: Callable[[Cancelation], bytes] | None = None
    ending: Ending = "truncate"
    shields_items: bool = False
    shield_timeout: float | None = None
    drain: Drain | None = None
    on_close: tuple[Callable[[], object], ...] = ()

    @property
    def is_soft(self) -> bool:
        """Whether the generator may go on for a while when the stream is told to end."""
        return self.shields_items or self.drain is not None

    @property
    def is_whole(self) -> bool:
        """Whether messages are not interrupted, since something may follow them."""
        return self.is_soft or self.farewell is not None or self.chunk_size is not None

    @property
    def has_courier(self) -> bool:
        """Whether anything is sent, or waited for, while the generator is quiet."""
        has_pulse = self.chunk_size is not None or self.heartbeat_interval < inf
        return has_pulse or self.send_timeout is not None
