"""A streaming response that stops, and closes its generator, when its operation is cancelled."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable, Iterator, Mapping
from typing import Any, TypeAlias, cast

import anyio
from anyio import to_thread
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from .._core._errors import CancelationError
from .._core._lifecycle import OperationStatus
from .._scope import Cancelable

Content: TypeAlias = "str | bytes | memoryview"

_NOT_STREAMS = (str, bytes, bytearray, memoryview, Mapping)  # iterable, but nobody means that

CLOSING_BUDGET = 10.0
"""How long a generator may take to clean up, in seconds."""


async def cancelable_streaming_response(
    generator: AsyncIterable[Content] | Iterable[Content],
    cancelable: Cancelable,
    media_type: str = "text/plain",
    chunk_size: int | None = None,
) -> StreamingResponse:
    """Make a streaming response that is part of the operation *cancelable*.

    When the operation is cancelled, or its time is up, the generator is interrupted where it waits,
    and closed in the task that ran it. What was sent until then is left unfinished, so that the client
    can see that it was cut short. If the operation was cancelled before the response started, sending
    it raises the `CancelationError` instead, which the middleware answers.

    Args:
        generator: What to send: an (async) generator or iterable of ``bytes`` or ``str``.
        cancelable: The operation. If its block was not entered yet, sending the response enters it;
            else the response ends when the operation is cancelled, its deadline included.
        media_type: The content type.
        chunk_size: The most bytes to send in one message: larger pieces are split. Smaller ones are
            sent as they come, never held back.

    Raises:
        TypeError: If *generator* is no iterable, or *cancelable* no `Cancelable`.
        ValueError: If *chunk_size* is not positive.
    """
    return CancelableStreamingResponse(generator, cancelable, media_type=media_type, chunk_size=chunk_size)


class CancelableStreamingResponse(StreamingResponse):
    """The response that `cancelable_streaming_response` makes."""

    def __init__(
        self,
        content: AsyncIterable[Content] | Iterable[Content],
        cancelable: Cancelable,
        *,
        media_type: str,
        chunk_size: int | None,
    ) -> None:
        if not isinstance(content, (AsyncIterable, Iterable)) or isinstance(content, _NOT_STREAMS):
            raise TypeError(f"generator must be an iterable or an async iterable, got {content!r}")
        if not isinstance(cancelable, Cancelable):
            raise TypeError(f"cancelable must be a Cancelable, got {cancelable!r}")
        if chunk_size is not None and not (type(chunk_size) is int and chunk_size > 0):
            raise ValueError(f"chunk_size must be a positive number of bytes, got {chunk_size!r}")
        super().__init__(content, media_type=media_type)
        self._content = content
        self._cancelable = cancelable
        self._chunk_size = chunk_size
        self._has_started = False
        self._is_complete = False
        self._error: CancelationError | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response, and run its background task if all of it was sent.

        Raises:
            CancelationError: If the operation was cancelled before the response started.
        """
        background: BackgroundTask | None = self.background
        self.background = None  # until all is sent
        await super().__call__(scope, receive, send)
        # Not raised in there: a TimeoutCancelation is an OSError, and that means a disconnect to Starlette.
        if self._error is not None:
            raise self._error
        if background is not None and self._is_complete:
            await background()

    async def stream_response(self, send: Send) -> None:
        """Send the response. Starlette calls this, in the task in which the generator runs."""
        is_new = self._cancelable.status is OperationStatus.PENDING
        operation = self._cancelable if is_new else self._cancelable.follow()
        try:
            operation.check()  # nothing is sent if it is all over
            async with operation:
                await self._send_all(send)
            # Outside: servers report the end of a response as a disconnect, for which Starlette interrupts
            # this task, and the operation has been completed all the same.
            self._is_complete = operation.status is OperationStatus.COMPLETED
            if self._is_complete:
                await send(_body(b"", more=False))
        except CancelationError as error:
            self._error = None if self._has_started else error
        finally:
            await self._close()

    async def _send_all(self, send: Send) -> None:
        await checkpoint_if_cancelled()  # no time at all: a start would promise something
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        self._has_started = True
        async for item in self.body_iterator:
            data = item.encode(self.charset) if isinstance(item, str) else memoryview(item)
            for piece in self._split(data):
                await send(_body(piece, more=True))
            await checkpoint()  # neither the generator nor the server's send() needs to be one

    def _split(self, data: bytes | memoryview) -> Iterator[bytes]:
        size = self._chunk_size or len(data) or 1
        return (bytes(data[start : start + size]) for start in range(0, len(data), size))

    async def _close(self) -> None:
        with anyio.move_on_after(CLOSING_BUDGET, shield=True):
            iterator, content = cast("Any", self.body_iterator), cast("Any", self._content)
            if isinstance(iterator, AsyncGenerator):
                await iterator.aclose()
            if isinstance(content, Generator):  # where it ran: in a thread
                await to_thread.run_sync(content.close)


def _body(data: bytes, more: bool) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}
