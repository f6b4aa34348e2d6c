"""What a registry hears, as an async iterator for dashboards.

Events come from any thread, and go to listeners in any event loop:

1. Whoever has an event appends it to each listener's queue, which drops its oldest event if it is full, and
   then takes the waiter, if there is one. Who has taken it has to wake it.
2. A listener announces itself as waiter first, and looks into its queue again after that. So either it
   sees the event, or the other sees the waiter.
3. Nothing is awaited between taking an event and returning it: a cancelation loses none.

The registry knows its listeners by weak references. One that is no longer used is gone.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import count
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias, final

import anyio
from anyio.lowlevel import EventLoopToken, checkpoint, current_token

from .._core._observers import Progress, Transition
from .._core._public import public
from .._core._wakeup import run_in
from ._filter import Filter

if TYPE_CHECKING:
    from typing_extensions import Self

Event: TypeAlias = Transition | Progress


@public
@final
class OperationEvents:
    """The events of operations, from now on: an async iterator of `Transition` and `Progress`.

    `OperationRegistry.events` makes them. Events that are not fetched soon enough wait, up to a limit;
    then the oldest are dropped, and counted in `dropped`. It never ends by itself. Leave it like this,
    since a ``break`` tells an iterator nothing::

        async with registry.events() as events:
            async for event in events:
                ...

    It belongs to one task at a time, in any event loop.
    """

    __slots__ = (
        "__weakref__",
        "_guard",
        "_is_closed",
        "_last",
        "_numbers",
        "_queue",
        "_taken",
        "_unregister",
        "_waiter",
        "_wanted",
    )

    def __init__(self, wanted: Filter, buffer: int, unregister: Callable[[], object]) -> None:
        self._wanted = wanted
        self._unregister = unregister
        # Each with its number. Two threads may append in another order than they were numbered.
        self._queue: deque[tuple[int, Event]] = deque(maxlen=buffer)
        self._numbers = count(1)
        self._last = 0
        self._taken = 0
        # Holds at most one value: a dict rather than an attribute, for its pop().
        self._waiter: dict[None, tuple[EventLoopToken, anyio.Event]] = {}
        self._guard = anyio.ResourceGuard("listening to")
        self._is_closed = False

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"{len(self._queue)} waiting, {self.dropped} dropped"
        return f"<{type(self).__name__} {state} at {id(self):#x}>"

    @property
    def dropped(self) -> int:
        """How many events were lost so far, since they were not fetched soon enough."""
        waiting = [number for number, _ in self._queue.copy()]
        return max((*waiting, self._last)) - len(waiting) - self._taken

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Return the next event. Always a checkpoint.

        Raises:
            StopAsyncIteration: After `aclose`.
            anyio.BusyResourceError: If another task is waiting here.
        """
        with self._guard:
            await checkpoint()
            while not (self._queue or self._is_closed):
                await self._wait()
            if self._is_closed:
                raise StopAsyncIteration
            return self._take()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop listening, at once; a task that waits for an event is told. Not a checkpoint."""
        self._is_closed = True
        self._unregister()
        self._queue.clear()
        self._wake()

    def hear(self, event: Event) -> None:
        """Take an event in. Safe in any thread; never blocks."""
        if self._wanted.matches(event.context):
            self._queue.append((next(self._numbers), event))
            self._wake()

    async def _wait(self) -> None:
        news = anyio.Event()
        self._waiter[None] = current_token(), news
        try:
            if not (self._queue or self._is_closed):
                await news.wait()
        finally:
            self._waiter.pop(None, None)

    def _wake(self) -> None:
        waiter = self._waiter.pop(None, None)
        if waiter is not None:
            loop, news = waiter
            run_in(loop, news.set)

    def _take(self) -> Event:
        number, event = self._queue.popleft()
        self._last = max(self._last, number)
        self._taken += 1
        return event


@final
class Listeners:
    """All that listen to one registry."""

    __slots__ = ("_listeners",)

    def __init__(self) -> None:
        self._listeners: dict[object, weakref.ref[OperationEvents]] = {}

    def __len__(self) -> int:
        return len(self._listeners)

    def add(self, wanted: Filter, buffer: int) -> OperationEvents:
        """Make a listener that hears from now on."""
        handle = object()
        remove = partial(self._listeners.pop, handle, None)
        events = OperationEvents(wanted, buffer, remove)
        self._listeners[handle] = weakref.ref(events, lambda _: remove())
        return events

    def tell(self, event: Event) -> None:
        """Tell all listeners."""
        if self._listeners:
            for reference in list(self._listeners.values()):
                listener = reference()
                if listener is not None:
                    listener.hear(event)
