"""Streaming responses that stop, and close their generators, when their operation is cancelled."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from datetime import timedelta
from functools import partial
from math import inf
from typing import Any, Literal, TypeAlias, cast, get_args

from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from .._callbacks import checked
from .._core._timeouts import seconds
from .._scope import Cancelable
from ..asgi._response import ENDS_ITSELF
from ._delivery import Delivery
from ._drain import Drain
from ._manner import Ending, Manner
from ._sse import EVENT_STREAM, HEARTBEAT, ServerSentEvent, encode_event, encode_farewell
from ._thread_steps import ThreadSteps

Content: TypeAlias = "str | bytes | memoryview"

_NOT_STREAMS = (str, bytes, bytearray, memoryview, Mapping)  # iterable, but nobody means that


async def cancelable_streaming_response(
    generator: AsyncIterable[Content] | Iterable[Content],
    cancelable: Cancelable,
    media_type: str = "text/plain",
    chunk_size: int | None = None,
    *,
    flush_after: float | timedelta = 0.1,
    ending: Ending = "truncate",
    shield: Literal["item"] | None = None,
    shield_timeout: float | timedelta | None = 10.0,
    drain: Drain | None = None,
    send_timeout: float | timedelta | None = None,
    on_close: Callable[[], object] | None = None,
) -> StreamingResponse:
    """Make a streaming response that is part of the operation *cancelable*.

    When the operation is cancelled, or its time is up, the generator is interrupted where it waits,
    and closed in the task that ran it. What was sent until then is left unfinished, so that the client
    can see that it was cut short; a ``text/event-stream`` gets a last event first, ``cancelled``, with
    the cause as a JSON document. If the operation was cancelled before the response started, sending
    it raises the `CancelationError` instead, which the middleware answers.

    Args:
        generator: What to send: an (async) generator or iterable of ``bytes`` or ``str``. The steps of a
            plain one are made in worker threads.
        cancelable: The operation. If its block was not entered yet, sending the response enters it;
            else the response ends when the operation is cancelled, its deadline included.
        media_type: The content type.
        chunk_size: How many bytes each message has: smaller pieces are put together and larger ones
            split. By default each piece is a message.
        flush_after: How long a piece that is smaller than *chunk_size* waits for the next one, in
            seconds, before it is sent as it is. If there is always a little more, at most a second.
        ending: What follows the ``cancelled`` event of a ``text/event-stream``: ``"truncate"`` leaves the
            response unfinished, ``"complete"`` ends it as if all was well.
        shield: ``"item"``: let a generator that is working on its next item finish it before it is
            closed. What it does after a ``yield`` belongs to the next item.
        shield_timeout: For how long, in seconds.
        drain: How to read on after the client has left.
        send_timeout: How long a client may take to make room for one message, in seconds, before it is
            let go.
        on_close: Called once, with the generator closed, however the response ended. It may be async.
            The ``finally`` of a generator that was never started does not run: this does.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a number is out of range.
    """
    _check_stream(generator, cancelable, "generator")
    if chunk_size is not None and not (type(chunk_size) is int and chunk_size > 0):
        raise ValueError(f"chunk_size must be a positive number of bytes, got {chunk_size!r}")
    is_event_stream = media_type.partition(";")[0].strip().lower() == EVENT_STREAM
    response = CancelableStreamingResponse(generator, cancelable, media_type=media_type)
    response.manner = Manner(
        encode=partial(_encode, charset=response.charset),
        chunk_size=chunk_size,
        flush_after=_or_forever(seconds(flush_after, "flush_after")),
        farewell=encode_farewell if is_event_stream else None,
        **_checked(ending, shield, shield_timeout, drain, send_timeout, on_close),
    )
    return response


def cancelable_sse_response(
    events: AsyncIterable[ServerSentEvent | str] | Iterable[ServerSentEvent | str],
    cancelable: Cancelable,
    *,
    heartbeat: float | timedelta | None = 15.0,
    send_timeout: float | timedelta | None = 30.0,
    retry_spread: float | timedelta = 5.0,
    ending: Ending = "truncate",
    shield: Literal["item"] | None = None,
    shield_timeout: float | timedelta | None = 10.0,
    drain: Drain | None = None,
    on_close: Callable[[], object] | None = None,
) -> StreamingResponse:
    """Make a response of server-sent events that is part of the operation *cancelable*.

    It ends as that of `cancelable_streaming_response` does, with the event ``cancelled`` unless it is
    the client who has left. Proxies are told neither to keep it nor to hold it back.

    Args:
        events: An (async) generator or iterable of events; a text is the data of one. The steps of a
            plain one are made in worker threads.
        cancelable: The operation. If its block was not entered yet, sending the response enters it;
            else the response ends when the operation is cancelled, its deadline included.
        heartbeat: When nothing was sent for so many seconds, a comment is: to keep proxies from closing
            the connection, and to notice clients who have gone without a word. ``None`` for none.
        send_timeout: How long a client may take to make room for one event, in seconds, before it is
            let go. ``None``: for ever.
        retry_spread: When the server shuts down, clients are asked to come back after a second at
            least, and a random part of so many seconds more.
        ending: What follows the ``cancelled`` event: ``"truncate"`` leaves the response unfinished,
            ``"complete"`` ends it as if all was well. An ``EventSource`` comes back after both.
        shield: ``"item"``: let a generator that is working on its next event finish it before it is
            closed. What it does after a ``yield`` belongs to the next event.
        shield_timeout: For how long, in seconds.
        drain: How to read on after the client has left.
        on_close: Called once, with the generator closed, however the response ended. It may be async.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a number is out of range.
    """
    _check_stream(events, cancelable, "events")
    interval = seconds(heartbeat, "heartbeat")
    if interval == 0:
        raise ValueError("heartbeat must be a positive number of seconds, got 0")
    spread = seconds(retry_spread, "retry_spread")
    if spread is None:
        raise ValueError("retry_spread must be finite: clients are to come back")
    response = CancelableStreamingResponse(cast("Any", events), cancelable, media_type=EVENT_STREAM)
    response.headers["cache-control"] = "no-store"
    response.headers["x-accel-buffering"] = "no"  # nginx
    response.manner = Manner(
        encode=encode_event,
        heartbeat=HEARTBEAT,
        heartbeat_interval=_or_forever(interval),
        farewell=partial(encode_farewell, retry_spread=spread),
        **_checked(ending, shield, shield_timeout, drain, send_timeout, on_close),
    )
    return response


class CancelableStreamingResponse(StreamingResponse):
    """The response that the functions above make."""

    manner: Manner

    def __init__(
        self,
        content: AsyncIterable[Content] | Iterable[Content],
        cancelable: Cancelable,
        *,
        media_type: str,
    ) -> None:
        self._content = content if isinstance(content, AsyncIterable) else ThreadSteps(content)
        super().__init__(self._content, media_type=media_type)
        self._cancelable = cancelable

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response, and run its background task if all of it was sent.

        Raises:
            CancelationError: If the operation was cancelled before the response started.
        """
        start = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
            ENDS_ITSELF: self.manner.is_whole,
        }
        if scope["type"] == "websocket":
            send = self._wrap_websocket_denial_send(send)
        background: BackgroundTask | None = self.background
        delivery = Delivery(
            self.body_iterator, (self._content,), self._cancelable, self.manner, scope, receive, send
        )
        if await delivery.run(start) and background is not None:
            await background()


def _check_stream(content: Any, cancelable: Any, name: str) -> None:
    if not isinstance(content, (AsyncIterable, Iterable)) or isinstance(content, _NOT_STREAMS):
        raise TypeError(f"{name} must be an iterable or an async iterable, got {content!r}")
    if not isinstance(cancelable, Cancelable):
        raise TypeError(f"cancelable must be a Cancelable, got {cancelable!r}")


def _checked(
    ending: Any, shield: Any, shield_timeout: Any, drain: Any, send_timeout: Any, on_close: Any
) -> dict[str, Any]:
    """Check what both kinds of responses take, and return it as parts of a `Manner`."""
    if ending not in get_args(Ending):
        raise ValueError(f"ending must be 'truncate' or 'complete', got {ending!r}")
    if shield not in {"item", None}:
        raise ValueError(f"shield must be 'item' or None, got {shield!r}")
    if not isinstance(drain, (Drain, type(None))):
        raise TypeError(f"drain must be a Drain, got {drain!r}")
    return {
        "ending": ending,
        "shields_items": shield is not None,
        "shield_timeout": seconds(shield_timeout, "shield_timeout"),
        "drain": drain,
        "send_timeout": seconds(send_timeout, "send_timeout"),
        "on_close": () if on_close is None else (checked(on_close),),
    }


def _or_forever(value: float | None) -> float:
    return inf if value is None else value


def _encode(item: Content, *, charset: str) -> bytes | memoryview:
    if isinstance(item, str):
        return item.encode(charset)
    return item if isinstance(item, bytes) else memoryview(item)
