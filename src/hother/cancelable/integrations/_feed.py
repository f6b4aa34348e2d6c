"""A feed of server-sent events, which its clients may leave and come back to.

1. Events have consecutive numbers. So many that were not handed to the client yet are kept, then the
   generator waits; and as many that were, since they may have been lost on the way. No client has a gap.
2. A feed has one client at a time: the latest. One whose connection is dead may not have been missed yet.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import AsyncIterable, Callable
from dataclasses import replace
from typing import TypeAlias, final

from anyio import Event

from .._core._errors import error_for
from .._scope import Cancelable
from ._sse import ServerSentEvent

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

    def detach(self) -> None:
        """Have no client for now; the one before is over."""
        self.client = None
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
    """A client's way through a feed: an async iterator that may be interrupted anywhere.

    Args:
        feed: Whose events it gets.
        number: That of the last event that it has.
        on_begin: Called when it begins to listen.
        on_end: Called when it has left, unless another one has come.
    """

    def __init__(
        self,
        feed: Feed,
        number: int,
        *,
        on_begin: Callable[[Feed], None],
        on_end: Callable[[Feed], None],
    ) -> None:
        self._feed = feed
        self._number = number
        self._on_begin = on_begin
        self._on_end = on_end

    def __aiter__(self) -> Attachment:
        self._on_begin(self._feed)
        self._feed.attach(self)
        return self

    async def __anext__(self) -> ServerSentEvent:
        """Wait for the next event."""
        event = await self._feed.get(self._number + 1, self)
        self._number += 1
        return event

    async def aclose(self) -> None:
        """The client has left, or has everything."""
        if self._feed.client is self:
            self._feed.detach()
            self._on_end(self._feed)
