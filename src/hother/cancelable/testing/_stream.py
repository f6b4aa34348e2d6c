"""A source of items with the moods of real ones: bursts, stalls, jitter, errors."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import inf
from typing import TYPE_CHECKING, Generic, TypeVar, final

import anyio
from anyio import get_current_task

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")


@final
class StreamSimulator(Generic[T]):
    """An async iterator over *items* that takes its time, and remembers how it was treated.

    Its time is the event loop's, so on a clock that jumps it takes none. The same seed makes the same
    delays.

    ::

        source = StreamSimulator(range(100), pause=0.1, jitter=0.5, stalls={50: 3600}, seed=7)
        with pytest.raises(TimeoutCancelation):
            async for item in cancelable_stream(source, timeout=60):
                ...
        source.assert_closed()

    Args:
        items: What to yield. May be endless.
        pause: How long to wait before each item (or each burst), in seconds. 0 is still a checkpoint.
        jitter: By what fraction a pause may be longer or shorter, from 0 to 1.
        burst: How many items come at once: a number, or the least and the most.
        stalls: What item (counted from 0) comes how many seconds late; ``inf`` for never.
        fails_at: Before what item (counted from 0) to raise *error*.
        error: What to raise: called for an exception.
        closing: How long closing takes, in seconds.
        seed: What the random numbers are made from.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        items: Iterable[T],
        *,
        pause: float = 0.1,
        jitter: float = 0.0,
        burst: int | tuple[int, int] = 1,
        stalls: Mapping[int, float] | None = None,
        fails_at: int | None = None,
        error: Callable[[], Exception] = ConnectionError,
        closing: float = 0.0,
        seed: int = 0,
    ) -> None:
        least, most = (burst, burst) if isinstance(burst, int) else burst
        if not (pause >= 0 and closing >= 0):
            raise ValueError(f"pause and closing must not be negative, got {pause!r} and {closing!r}")
        if not 0 <= jitter <= 1:
            raise ValueError(f"jitter must be between 0 and 1, got {jitter!r}")
        if not 1 <= least <= most:
            raise ValueError(f"burst must be a positive number, or two in order, got {burst!r}")
        self._items = iter(items)
        self._pauses = _pauses(random.Random(seed), pause, jitter, least, most)
        self._stalls = {} if stalls is None else dict(stalls)
        self._fails_at = fails_at
        self._error = error
        self._closing = closing
        self._is_waiting = False
        self._ahead: list[float | None] = []  # the pause before the next item, once it has begun
        self.delivered: list[T] = []  #: the items that were handed over
        self.delivered_at: list[float] = []  #: when, on the event loop's clock, in seconds
        self.read_by: list[int] = []  #: the ids of the tasks that asked for items, in order
        self.interruptions: int = 0  #: how often a wait for an item was interrupted
        self.has_ended: bool = False  #: whether it failed, or the end was seen after the last item
        self.is_closed: bool = False  #: whether ``aclose()`` ran to its end
        self.closed_at: float | None = None  #: when ``aclose()`` was first called
        self.closed_by: list[int] = []  #: the ids of the tasks that called ``aclose()``

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else "ended" if self.has_ended else "open"
        return f"<{type(self).__name__} {state}, {len(self.delivered)} items at {id(self):#x}>"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """Wait for the next item. Always a checkpoint, but for items that come in a burst.

        An item whose wait is interrupted is not lost: it comes next.

        Raises:
            RuntimeError: If another task is waiting already.
            StopAsyncIteration: At the end, and after ``aclose()``.
        """
        if self._is_waiting:
            raise RuntimeError("two tasks wait for items of one stream at the same time")
        task = get_current_task().id
        if task not in self.read_by:
            self.read_by.append(task)
        if self.closed_by or self.has_ended:
            raise StopAsyncIteration
        self._is_waiting = True
        try:
            await self._wait()
        except BaseException:
            self.interruptions += 1
            raise
        finally:
            self._is_waiting = False
        return self._take()

    async def aclose(self) -> None:
        """Close it. A second call does nothing."""
        self.closed_by.append(get_current_task().id)
        if self.closed_at is None:
            self.closed_at = anyio.current_time()
            if self._closing:
                await anyio.sleep(self._closing)
            self.is_closed = True

    def assert_closed(self, *, by: int | None = None) -> None:
        """Check that it was closed, all the way and once.

        Args:
            by: The id of the task that should have done it; by default, one that read from it.

        Raises:
            AssertionError: If it was not; the message tells what happened.
        """
        closers = (self.read_by or self.closed_by) if by is None else [by]
        if not (self.is_closed and len(self.closed_by) == 1 and self.closed_by[0] in closers):
            extent = "" if self.is_closed else ", not to the end"
            raise AssertionError(
                f"expected the stream to be closed once, by {_tasks(closers)}; got: "
                f"{len(self.delivered)} items handed over to {_tasks(self.read_by)}, "
                f"{self.interruptions} waits interrupted, closed by {_tasks(self.closed_by)}{extent}"
            )

    async def _wait(self) -> None:
        if not self._ahead:
            self._ahead.append(next(self._pauses))
        stall = self._stalls.get(len(self.delivered), 0.0)
        if stall == inf:
            await anyio.sleep_forever()
        if self._ahead[0] is not None or stall:
            await anyio.sleep((self._ahead[0] or 0.0) + stall)

    def _take(self) -> T:
        try:
            if len(self.delivered) == self._fails_at:
                raise self._error()
            item = next(self._items)
        except StopIteration:
            self.has_ended = True
            raise StopAsyncIteration from None
        except Exception:
            self.has_ended = True
            raise
        self._ahead.clear()
        self.delivered.append(item)
        self.delivered_at.append(anyio.current_time())
        return item


def _pauses(rng: random.Random, pause: float, jitter: float, least: int, most: int) -> Iterator[float | None]:
    """The pause before each item; ``None`` for those that come in a burst with the one before."""
    while True:
        yield pause * (1 + jitter * rng.uniform(-1, 1))
        for _ in range(rng.randint(least, most) - 1):
            yield None


def _tasks(ids: list[int]) -> str:
    return ", ".join(f"task {task}" for task in ids) or "nobody"
