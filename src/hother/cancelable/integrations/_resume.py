"""Server-sent events that go on for a while without their client, for it to come back.

A feed outlives its request: it runs in a task of its own, in the task group of a `ResumableEvents` that
the application's lifespan holds open, and in that one's context, not in the request's.

A feed that has no client has a timer; one that has a client has none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, final

from anyio import Event, create_task_group, move_on_after
from anyio.abc import TaskGroup
from starlette.requests import Request
from starlette.responses import Response

from .._core._errors import CancelationError, LifecycleError
from .._core._reasons import Cancelation, CancelationReason
from .._core._report import report
from .._core._timeouts import seconds
from .._scope import Cancelable
from ._feed import Attachment, Feed, Produce
from ._manner import Ending
from ._requests import get_request_token
from ._sse import get_last_event_id
from ._streaming import cancelable_sse_response

if TYPE_CHECKING:
    from typing_extensions import Self


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
        else:
            # From now on, not from its first step: the client before, who may be dead and not missed yet,
            # would use up what is kept for this one.
            feed.detach()
            self._wait_for_client(feed)
        return cancelable_sse_response(
            Attachment(feed, number, on_begin=self._attach, on_end=self._wait_for_client),
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

    def _attach(self, feed: Feed) -> None:
        self._waiting.pop(feed.id, None)

    def _wait_for_client(self, feed: Feed) -> None:
        """Begin to wait, anew: the client has left, or has not begun to listen."""
        if feed.id in self._feeds:
            feed.arrival.set()  # whoever waited before has waited for this one
            feed.arrival = Event()
            self._waiting.pop(feed.id, None)
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
