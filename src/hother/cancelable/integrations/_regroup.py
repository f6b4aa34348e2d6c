"""How a stream's pieces become messages: as they come, or regrouped. No I/O."""

from __future__ import annotations

from collections import deque
from typing import Protocol, TypeAlias

Bytes: TypeAlias = "bytes | memoryview"


class Grouping(Protocol):
    """What waits to be sent."""

    def add(self, data: Bytes) -> None:
        """Take the next piece."""
        ...

    def take(self, *, everything: bool) -> bytes:
        """Hand over what makes the next message; nothing if there is not enough for one.

        Args:
            everything: Whether any rest is enough.
        """
        ...

    @property
    def is_ready(self) -> bool:
        """Whether there is enough for a message."""
        ...

    def __len__(self) -> int:
        """How much waits."""
        ...


class AsTheyCome:
    """Each piece is a message."""

    __slots__ = ("_pieces",)

    def __init__(self) -> None:
        self._pieces: deque[Bytes] = deque()

    def add(self, data: Bytes) -> None:
        """Take the next piece. An empty one is none."""
        if data:
            self._pieces.append(data)

    def take(self, *, everything: bool) -> bytes:
        """Hand over the next piece."""
        return bytes(self._pieces.popleft()) if self._pieces else b""

    @property
    def is_ready(self) -> bool:
        """Whether there is a piece."""
        return len(self._pieces) > 0

    def __len__(self) -> int:
        return len(self._pieces)


class Chunks:
    """Every message has the same size, but for one that ends with the rest.

    Args:
        size: In bytes. A character may so come in two parts: a client decodes the stream, not its chunks.
    """

    __slots__ = ("_size", "_waiting")

    def __init__(self, size: int) -> None:
        self._size = size
        self._waiting = bytearray()

    def add(self, data: Bytes) -> None:
        """Take the next piece."""
        self._waiting += data

    def take(self, *, everything: bool) -> bytes:
        """Hand over the next chunk."""
        if not self.is_ready and not everything:
            return b""
        chunk = bytes(self._waiting[: self._size])
        del self._waiting[: self._size]
        return chunk

    @property
    def is_ready(self) -> bool:
        """Whether there is a whole chunk."""
        return len(self._waiting) >= self._size

    def __len__(self) -> int:
        return len(self._waiting)
