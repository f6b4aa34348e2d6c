"""Streams that stop: async iterators with an operation of their own."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ._core._public import public
from ._core._token import CancelationToken
from ._iteration import CancelableAsyncIterator, positive
from ._scope import Cancelable

if TYPE_CHECKING:
    from datetime import timedelta

    from typing_extensions import Self, Unpack

    from ._options import OperationOptions

T = TypeVar("T")

__all__ = (
    "CancelableAsyncIterator",
    "ChunkedCancelableStream",
    "cancelable_stream",
    "chunked_cancelable_stream",
)


@public
def cancelable_stream(
    stream: AsyncIterable[T],
    timeout: float | timedelta | None = None,
    token: CancelationToken | None = None,
    *,
    report_interval: int | None = None,
    on_progress: Callable[[str, Any, Mapping[str, Any]], object] | None = None,
    buffer_partial: bool | int = False,
    **options: Unpack[OperationOptions],
) -> CancelableAsyncIterator[T]:
    """Go through *stream* for as long as *timeout* and *token* allow: see `CancelableAsyncIterator`.

    ::

        async with cancelable_stream(events(), timeout=30) as items:
            async for item in items:
                ...

    Args:
        stream: An async iterable. It is closed when it ends, fails or is interrupted.
        timeout: How long it may take, in seconds, counted from the first step.
        token: What cancels it.
        report_interval: After how many items to report progress, each time.
        on_progress: Called with id, message and metadata of each report. It may be async.
        buffer_partial: How many of the latest items to keep: ``True`` for 1000.
        options: See `OperationOptions`. With ``raise_on_cancel=False`` a cancelled stream just ends.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a number is out of range.
    """
    operation = Cancelable(timeout=timeout, tokens=() if token is None else (token,), **options)
    if on_progress is not None:
        operation.on_progress(on_progress)
    return own_stream(stream, operation, report_interval, buffer_partial)


def own_stream(
    stream: AsyncIterable[T],
    operation: Cancelable,
    report_interval: int | None = None,
    buffer_partial: bool | int = False,
) -> CancelableAsyncIterator[T]:
    """Make a stream that has *operation* to itself: it stands for all of its steps."""
    iterator = CancelableAsyncIterator(stream, operation, report_interval, buffer_partial)
    iterator._steps = operation
    return iterator


@public
def chunked_cancelable_stream(
    stream: AsyncIterable[T],
    chunk_size: int,
    cancelable: Cancelable | None = None,
    *,
    timeout: float | timedelta | None = None,
    token: CancelationToken | None = None,
) -> ChunkedCancelableStream[T]:
    """Go through *stream* in lists of *chunk_size* items; only the last one may be shorter.

    Args:
        stream: An async iterable. It is closed when it ends, fails or is interrupted.
        chunk_size: How many items make a chunk.
        cancelable: The operation that it ends with.
        timeout: How long it may take, in seconds, counted from the first step; not with *cancelable*.
        token: What cancels it; not with *cancelable*.

    Raises:
        TypeError: If an argument is of the wrong kind, or there is both an operation and its parts.
        ValueError: If a number is out of range.
    """
    if cancelable is None:
        return ChunkedCancelableStream(cancelable_stream(stream, timeout, token), chunk_size)
    if timeout is not None or token is not None:
        raise TypeError("give either an operation, or a timeout and a token for a new one")
    return ChunkedCancelableStream(CancelableAsyncIterator(stream, cancelable), chunk_size)


@public
class ChunkedCancelableStream(Generic[T]):
    """What `chunked_cancelable_stream` makes: an async iterator of lists.

    What was fetched when the stream fails, or its operation is cancelled, is handed over as a short
    chunk, and the error raised by the step after it. When a cancelation from outside interrupts a
    step, that passes through at once; what was fetched is in `gathered`, and comes with the next step.

    Args:
        stream: Where the items come from.
        chunk_size: How many items make a chunk.

    Raises:
        ValueError: If *chunk_size* is not positive.
    """

    def __init__(self, stream: CancelableAsyncIterator[T], chunk_size: int) -> None:
        self._stream = stream
        self._size = positive(chunk_size, "chunk_size")
        self._gathered: list[T] = []
        self._error: Exception | None = None

    @property
    def cancelable(self) -> Cancelable:
        """The operation that it ends with."""
        return self._stream.cancelable

    @property
    def gathered(self) -> list[T]:
        """What was fetched and not handed over yet."""
        return list(self._gathered)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[T]:
        """Fetch the next chunk.

        Raises:
            StopAsyncIteration: If there is none, or the stream was closed.
            CancelationError: If the operation was cancelled.
        """
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        try:
            while len(self._gathered) < self._size:
                self._gathered.append(await self._stream.__anext__())
        except Exception as error:
            if not self._gathered:
                raise
            self._error = error
        chunk, self._gathered = self._gathered, []
        return chunk

    async def aclose(self) -> None:
        """Close the source: see `CancelableAsyncIterator.aclose`."""
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
