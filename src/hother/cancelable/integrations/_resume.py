"""Server-sent events that go on for a while without their client, for it to come back.

A feed outlives its request: it runs in a task of its own, in the task group of a `ResumableEvents` that
the application's lifespan holds open, and in that one's context, not in the request's.

1. Events have consecutive numbers. So many that were not handed to a client yet are kept, then the
   generator waits; and as many that were, since they may have been lost on the way. No client has a gap.
2. A feed has one client at a time: the latest. One whose connection is dead may not have been missed yet.
3. Whoever has no client has a timer; whoever has one has none.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable
from contextvars import Context, copy_context
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias, final

from anyio import Event, create_task_group, move_on_after
from anyio.abc import TaskGroup
from starlette.requests import Request
from starlette.responses import Response

from .._core._errors import CancelationError, LifecycleError, error_for
from .._core._observers import report
from .._core._reasons import Cancelation, CancelationReason
from .._core._timeouts import seconds
from .._scope import Cancelable
from ._delivery import Ending
from ._requests import get_request_token
from ._sse import ServerSentEvent, get_last_event_id
from ._streaming import cancelable_sse_response

if TYPE_CHECKING:
    from typing_extensions import Self

Produce: TypeAlias = "Callable[[str | None], AsyncIterable[ServerSentEvent | str]]"


class Feed:
    """The events of one generator, for one client at a time.

    Args:
        operation: What the generator runs in.
        size: How many events wait for a client, and how many are kept that it was handed.
    """

    def __init__(self, operation: Cancelable, size: int) -> None:
        self.id = secrets.token_urlsafe(12)  #: who knows it may read the feed
        self.operation = operation
        self.client: Attachment | None = None
        self.arrival = Event()  #: of the next client
        self.error: Exception | None = None  #: why there will be no more events, unless that was all
        self.is_told = False  #: whether a client knows of the error
        self._is_over = False  # whether there will be no more events
        self._size = size
        self._events: deque[ServerSentEvent] = deque()
        self._count = 0
        self._handed_over = 0  # the number of the last event that the present client was handed
        self._changed = Event()

    async def run(self, produce: Produce, own_id: str | None) -> None:
        """Take the events that *produce* makes, and close their generator in the end."""
        operation = self.operation
        try:
            async with operation, operation.stream(produce(own_id)) as events:
                async for event in events:
                    await self._put(event)
        except Exception as error:
            self.error = error
        finally:
            if self.error is None and operation.cancelation is not None:  # and a scope around it was first
                self.error = error_for(operation.cancelation, operation.context)
            self._is_over = True
            self._notify()

    def can_go_on_after(self, number: int) -> bool:
        """Whether all events after *number* are kept, those to come included."""
        return not self.is_told and self._count - len(self._events) <= number <= self._count

    def is_exhausted(self, number: int) -> bool:
        """Whether there is nothing after *number*, and nothing to come."""
        return self._is_over and self.error is None and number == self._count

    def attach(self, client: Attachment) -> None:
        """Have a client; the one before is over."""
        self.client = client
        self.arrival.set()
        self._notify()

    async def get(self, number: int, client: Attachment) -> ServerSentEvent:
        """Wait for an event.

        Raises:
            StopAsyncIteration: If there is none, or *client* is not the one that has the feed.
            Exception: What the generator raised.
        """
        while self.client is client and number > self._count and not self._is_over:
            await self._changed.wait()
        if self.client is not client:
            raise StopAsyncIteration
        if number > self._count:
            self.is_told = self.error is not None
            raise self.error or StopAsyncIteration
        event = self._events[number - self._count - 1]
        self._hand_over(number)
        return event

    def _hand_over(self, number: int) -> None:
        self._handed_over = number
        while len(self._events) - self._size > self._count - self._handed_over:
            self._events.popleft()
        self._notify()

    async def _put(self, item: ServerSentEvent | str) -> None:
        event = item if isinstance(item, ServerSentEvent) else ServerSentEvent(item)
        while self._count - self._handed_over >= self._size:
            await self._changed.wait()
        self._count += 1
        own = f".{event.id}" if event.id else ""
        self._events.append(replace(event, id=f"{self.id}.{self._count}{own}"))
        self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, Event()
        changed.set()


@final
class Attachment:
    """A client's way through a feed: an async iterator that may be interrupted anywhere."""

    def __init__(self, feed: Feed, number: int, feeds: ResumableEvents) -> None:
        self._feed = feed
        self._number = number  # of the last event that the client has
        self._feeds = feeds

    def __aiter__(self) -> Attachment:
        self._feeds._attach(self._feed, self)
        return self

    async def __anext__(self) -> ServerSentEvent:
        """Wait for the next event."""
        event = await self._feed.get(self._number + 1, self)
        self._number += 1
        return event

    async def aclose(self) -> None:
        """The client has left, or has everything."""
        if self._feed.client is self:
            self._feed.client = None
            self._feeds._wait_for_client(self._feed)


@final
class ResumableEvents:
    """Server-sent events for clients who lose their connection and come back.

    Enter it in the application's lifespan, and have it answer::

        feeds = ResumableEvents(window=30)


        @app.get("/progress")
        async def progress(request: Request):
            return feeds.respond(request, report_progress)

    When a client leaves, the generator runs on for *window* seconds, while its events are kept. A
    client that comes back in time (an ``EventSource`` does so by itself, and says with
    ``Last-Event-ID`` what it has) gets all that it has missed, in order, and then what comes. If none
    does, the generator is cancelled.

    The events of one feed are served by one process: behind several workers, a client that comes to
    another one is a new client there.

    Args:
        window: How long to wait for a client, in seconds.
        buffer: How many events of each may wait for a client, before the generator does; and how many are
            kept that were sent, since a client may not have got them.
        max_waiting: How many generators may wait for their clients. If there are more, the one that has
            waited for longest is cancelled.

    Raises:
        TypeError: If *window* is not a number.
        ValueError: If a number is out of range.
    """

    def __init__(
        self, *, window: float | timedelta = 30.0, buffer: int = 256, max_waiting: int = 1000
    ) -> None:
        limit = seconds(window, "window")
        if limit is None:
            raise ValueError("window must be finite: a client may never come back")
        for name, number in (("buffer", buffer), ("max_waiting", max_waiting)):
            if type(number) is not int or number < 1:
                raise ValueError(f"{name} must be a positive number, got {number!r}")
        self._window = limit
        self._buffer = buffer
        self._max_waiting = max_waiting
        self._feeds: dict[str, Feed] = {}
        self._waiting: dict[str, Feed] = {}  # for a client, those first that have waited longest
        self._tasks: TaskGroup | None = None
        self._context: Context | None = None

    async def __aenter__(self) -> Self:
        if self._tasks is not None:
            raise LifecycleError("ResumableEvents can be entered once at a time")
        tasks = create_task_group()
        await tasks.__aenter__()
        self._tasks, self._context = tasks, copy_context()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._tasks is not None
        tasks, self._tasks = self._tasks, None
        for feed in self._feeds.values():
            feed.operation._settle(Cancelation(CancelationReason.SHUTDOWN))
        self._feeds.clear()
        self._waiting.clear()
        tasks.cancel_scope.cancel()
        await tasks.__aexit__(None, None, None)  # what the block raises is none of the group's business

    def respond(
        self,
        request: Request,
        produce: Produce,
        *,
        timeout: float | timedelta | None = None,
        heartbeat: float | timedelta | None = 15.0,
        send_timeout: float | timedelta | None = 30.0,
        ending: Ending = "truncate",
    ) -> Response:
        """Answer a client: one that comes back with what it has missed, others from the beginning.

        Args:
            request: The request. When it is cancelled, its client loses the connection, no more.
            produce: An async generator function, or another that returns an async iterable of events.
                It is called with the client's last event id, as far as the events had ids of their own;
                not ``None`` only if a client comes back too late, or to another process. It runs outside
                of the request, as an operation of its own.
            timeout: How long *produce* may take, in seconds.
            heartbeat: See `cancelable_sse_response`.
            send_timeout: See `cancelable_sse_response`.
            ending: See `cancelable_sse_response`.

        Returns:
            The response; a 204, which tells an ``EventSource`` not to come again, if the client has
            got everything before.

        Raises:
            LifecycleError: If this was not entered.
        """
        feed_id, number, own_id = _parse(get_last_event_id(request))
        feed = self._feeds.get(feed_id)
        if feed is not None and not feed.can_go_on_after(number):
            self._drop(feed, "its client came back too late")
            feed = None
        if feed is None:
            operation = Cancelable(timeout=timeout, name=request.url.path)
            feed, number = self._start(produce, own_id, operation), 0
        elif feed.is_exhausted(number):
            return Response(status_code=204)
        return cancelable_sse_response(
            Attachment(feed, number, self),
            Cancelable.with_token(get_request_token(request), name=request.url.path),
            heartbeat=heartbeat,
            send_timeout=send_timeout,
            ending=ending,
        )

    def _start(self, produce: Produce, own_id: str | None, operation: Cancelable) -> Feed:
        feed = Feed(operation, self._buffer)
        self._spawn(feed.run, produce, own_id)
        self._feeds[feed.id] = feed
        self._wait_for_client(feed)
        return feed

    def _spawn(self, function: Callable[..., Awaitable[None]], *args: object) -> None:
        if self._tasks is None or self._context is None:
            raise LifecycleError("enter the ResumableEvents in the application's lifespan: `async with`")
        # Not in the context of the request: that says what is to be stopped with it.
        start_soon: Any = self._tasks.start_soon
        self._context.copy().run(start_soon, function, *args)

    def _attach(self, feed: Feed, client: Attachment) -> None:
        self._waiting.pop(feed.id, None)
        feed.attach(client)

    def _wait_for_client(self, feed: Feed) -> None:
        """Begin to wait: the client has left, or has not begun to listen."""
        if feed.id in self._feeds:
            feed.arrival = Event()
            self._waiting[feed.id] = feed
            self._spawn(self._expire, feed, feed.arrival)
        if len(self._waiting) > self._max_waiting:
            self._drop(next(iter(self._waiting.values())), "too many others wait for their clients")

    async def _expire(self, feed: Feed, arrival: Event) -> None:
        with move_on_after(self._window):
            await arrival.wait()
        if not arrival.is_set():
            self._drop(feed, f"no client came back within {self._window:g} seconds")

    def _drop(self, feed: Feed, message: str) -> None:
        self._feeds.pop(feed.id, None)
        self._waiting.pop(feed.id, None)
        feed.arrival.set()
        feed.operation._settle(Cancelation(CancelationReason.DISCONNECT, message))
        if feed.error is not None and not feed.is_told and not isinstance(feed.error, CancelationError):
            report([feed.error])


def _parse(last_event_id: str | None) -> tuple[str, int, str | None]:
    """Return the feed that an event is of, its number there, and the id that the generator gave it."""
    feed_id, _, rest = (last_event_id or "").partition(".")
    digits, _, own_id = rest.partition(".")
    if digits.isascii() and digits.isdecimal() and len(digits) < 16:
        return feed_id, int(digits), own_id or None
    return "", -1, last_event_id  # not one of ours
