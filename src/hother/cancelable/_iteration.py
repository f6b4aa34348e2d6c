"""Go through a source item by item, and stop with an operation, in the middle of waiting for an item.

1. No scope is open while the consumer works: each step opens a block and closes it. So there is
   nothing that a ``break`` could leave armed, and whatever the consumer does is its own.
2. Once an item is fetched, nothing is awaited until the consumer has it. What else a step has to do
   (a checkpoint, a report of progress) comes before the fetching.
3. When the source ends, fails or is interrupted, it is closed, by the task that was going through it,
   shielded, and within `CLOSING_BUDGET`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from types import AsyncGeneratorType, CoroutineType, TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from anyio.lowlevel import checkpoint

from ._cleanup import ShieldedScope
from ._core._errors import LifecycleError, error_for
from ._core._public import public
from ._core._suspending import Work, and_whether_it_waited
from ._core._wakeup import checkpoint_if_cancelled
from ._parts import block_around, follow_alive
from ._running import has_sources, listen, open_block

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._block import Block
    from ._scope import Cancelable

T = TypeVar("T")

_COROUTINES: frozenset[object] = frozenset({CoroutineType})  # a set: the type is not to be narrowed by it

CLOSING_BUDGET = 10.0
"""How long a source may take to clean up, in seconds."""

KEPT = 1000
"""How many items are kept with ``buffer_partial=True``."""


@public
class CancelableAsyncIterator(Generic[T]):
    """An async iterator that ends with an operation, even while its source waits.

    `Cancelable.stream` and `cancelable_stream` make them. When the operation is cancelled, or its
    time is up, the source is interrupted where it waits, closed, and the step raises the
    `CancelationError`. In the operation's own block it is the block that raises it. An item that was
    fetched is always handed over first. The operation's time runs on while the consumer works.

    The source is closed as soon as it ends, fails or is interrupted. If you may leave the loop before
    that, say so, since a ``break`` tells an iterator nothing::

        async with cancelable_stream(source, timeout=30) as items:
            async for item in items:
                if item.is_last:
                    break

    It belongs to one task at a time.

    Args:
        source: What to go through.
        cancelable: The operation. It need not be entered; if it is not, its time counts from the
            first step.
        report_interval: After how many items to report progress to the operation, each time.
        buffer_partial: How many of the latest items to keep in `partial`: ``True`` for 1000.

    Raises:
        TypeError: If *source* is not an async iterable, or *cancelable* no `Cancelable`.
        ValueError: If a number is not positive.
    """

    def __init__(
        self,
        source: AsyncIterable[T],
        cancelable: Cancelable,
        report_interval: int | None = None,
        buffer_partial: bool | int = False,
    ) -> None:
        if not isinstance(source, AsyncIterable):
            raise TypeError(f"a stream goes through an async iterable, got {source!r}")
        if not hasattr(cancelable, "_leaders"):
            raise TypeError(f"cancelable must be a Cancelable, got {cancelable!r}")
        self._source: AsyncIterator[T] = aiter(source)
        self._cancelable = cancelable
        self._steps: Cancelable | None = None  # whose blocks the steps are, from the first step on
        self._interval = None if report_interval is None else positive(report_interval, "report_interval")
        self._kept: deque[T] = deque(maxlen=_how_many(buffer_partial))
        self._count = 0
        self._reported = 0
        self._is_generator = type(self._source) is AsyncGeneratorType
        self._has_waited = False  # whether fetching the latest item was a checkpoint
        self._is_closed = False

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "open"
        return f"<{type(self).__name__} {state}, {self._count} items at {id(self):#x}>"

    @property
    def cancelable(self) -> Cancelable:
        """The operation that it ends with."""
        return self._cancelable

    @property
    def count(self) -> int:
        """How many items were handed over."""
        return self._count

    @property
    def partial(self) -> list[T]:
        """The latest items that were handed over, as many as ``buffer_partial`` says."""
        return list(self._kept)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """Fetch the next item.

        Always looks for a cancelation, unless the end was reached before; and others get a turn, here or in
        the source, at least in every other step.

        Raises:
            StopAsyncIteration: If there is none, or the stream was closed.
            CancelationError: If the operation was cancelled.
        """
        if self._is_closed:
            raise StopAsyncIteration
        try:
            if self._interval is not None:
                await self._report(self._interval)
            block = block_around(self._cancelable)
            if block is None:
                item = await self._fetch_elsewhere()
            else:  # its scope interrupts us; and `_advance` would be one more coroutine
                await self._look(block)
                item, self._has_waited = await and_whether_it_waited(self._fetch())
        except GeneratorExit:  # the step itself was thrown away: there is nobody to wait for anything
            raise
        except BaseException:
            await self.aclose()
            raise
        self._count += 1
        self._kept.append(item)
        return item

    async def aclose(self) -> None:
        """Close the source, shielded from cancelation, within ten seconds. Twice does nothing.

        Raises:
            TimeoutError: If the source took longer; its cleanup was interrupted then.
            Exception: What the source raised.
        """
        if self._is_closed:
            return
        self._is_closed = True
        close: Callable[[], Any] | None = getattr(self._source, "aclose", None)
        if close is None:
            return
        with ShieldedScope(CLOSING_BUDGET, (self._steps or self._cancelable)._cleanup) as scope:
            await close()
        if scope.was_cut_short:
            raise TimeoutError(f"{self._source!r} was not closed within {scope.limit}")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _report(self, interval: int) -> None:
        """Report progress that is due. Not right after fetching: a callback may be interrupted."""
        if self._count - self._reported >= interval:
            self._reported = self._count
            await self._cancelable._tell_progress(f"{self._count} items", {"count": self._count})

    async def _fetch_elsewhere(self) -> T:
        if self._steps is None:
            if self._cancelable._block is None and has_sources(self._cancelable):
                raise LifecycleError(  # they wait in tasks, and no task may live from step to step
                    "the sources of an operation wait only in its block: enter it, and stream inside of it"
                )
            self._steps = follow_alive(self._cancelable)
        return await _in_a_block(self._steps, self._advance)

    async def _advance(self) -> T:
        assert self._steps is not None
        assert self._steps._block is not None
        await self._look(self._steps._block)
        item, self._has_waited = await and_whether_it_waited(self._fetch())
        return item

    def _look(self, block: Block) -> Awaitable[None]:
        """Look for a cancelation, and give others a turn, unless fetching the latest item did that."""
        return checkpoint_if_cancelled() if self._has_waited and not block.is_late else checkpoint()

    def _fetch(self) -> Work[T]:
        """Begin to fetch an item. What the usual sources return can be sent to, and needs no coroutine."""
        step: Any = self._source.__anext__()
        return step if self._is_generator or type(step) in _COROUTINES else _awaited(step)


async def _awaited(step: Awaitable[T]) -> T:
    return await step


async def _in_a_block(operation: Cancelable, advance: Callable[[], Awaitable[T]]) -> T:
    """Make one step in a block of its own. The operation is never entered; its time is that of all steps."""
    operation._block = block = open_block(operation, operation._block)
    try:
        listen(operation, block)
        item = await advance()
    except BaseException as error:
        if block.close(error) is not None:
            raise
        stopped = error
    else:
        block.close(None)
        return item
    operation._settle_stopped()
    if not operation._raise_on_cancel:
        raise StopAsyncIteration
    assert operation.cancelation is not None
    raise error_for(operation.cancelation, operation.context) from stopped


def positive(number: int, name: str) -> int:
    """Return *number*, or raise ``ValueError`` if it does not count anything."""
    if type(number) is not int or number < 1:
        raise ValueError(f"{name} must be a positive number of items, got {number!r}")
    return number


def _how_many(buffer_partial: bool | int) -> int:
    if isinstance(buffer_partial, bool):
        return KEPT if buffer_partial else 0
    return positive(buffer_partial, "buffer_partial")
