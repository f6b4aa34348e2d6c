"""The way out of a stream: who has something to send goes through here, one at a time.

1. What is added is sent, in order, or the response is not completed.
2. The response ends once: it is completed, or finished early, or abandoned. Later messages are dropped.
3. A message that was interrupted may be half on the wire. Nothing is sent after it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from anyio import CancelScope, Lock, current_time, move_on_after
from anyio.lowlevel import checkpoint
from starlette.types import Message, Send

from ._regroup import Bytes, Grouping

FAREWELL_BUDGET = 1.0
"""How long sending may go on when a stream is ended early, in seconds."""


class Outlet:
    """Sends one response.

    Args:
        send: ASGI's.
        grouping: What pieces become.
        is_whole: Whether a message that is being sent is not interrupted when the stream is ended, but
            given `FAREWELL_BUDGET`. Needed if anything is to follow it.
        send_timeout: How long the client may take to make room for a message, in seconds.
        is_timed: Whether *send_timeout*, or `sent_at`, is for anybody.
        on_broken: Called when the server raises that the client has left (ASGI 2.4).
    """

    __slots__ = (
        "_grouping",
        "_is_closed",
        "_is_timed",
        "_is_torn",
        "_is_whole",
        "_limit",
        "_lock",
        "_on_broken",
        "_send",
        "_sending",
        "_tail",
        "_timeout",
        "has_started",
        "is_complete",
        "patience",
        "sent_at",
    )

    def __init__(
        self,
        send: Send,
        *,
        grouping: Grouping,
        is_whole: bool,
        send_timeout: float | None,
        is_timed: bool,
        on_broken: Callable[[], None],
    ) -> None:
        self._send = send
        self._grouping = grouping
        self._is_whole = is_whole
        self._timeout = inf if send_timeout is None else send_timeout
        self._is_timed = is_timed
        self._on_broken = on_broken
        self._lock = Lock(fast_acquire=True)
        self._limit = inf  # when all sending ends, since the stream does
        self._sending: CancelScope | None = None
        #: A scope that is cancelled when the client has stalled. Interrupting what sends need not help.
        self.patience: CancelScope | None = None
        self._is_closed = False
        self._is_torn = False
        self._tail = b"\n\n"
        self.has_started = False  #: whether the response has
        self.is_complete = False  #: whether all of it was handed to the server
        self.sent_at = current_time()  #: when something was last sent, if it is timed

    @property
    def is_closed(self) -> bool:
        """Whether the response has ended, or has begun to."""
        return self._is_closed

    @property
    def is_ready(self) -> bool:
        """Whether something was added that makes a message, and may be sent."""
        return self._grouping.is_ready and not self._is_closed

    @property
    def has_waiting(self) -> bool:
        """Whether something was added and not sent."""
        return len(self._grouping) > 0 and not self._is_closed

    @property
    def is_between_events(self) -> bool:
        """Whether the body up to now ends with an empty line, as events do."""
        return self._tail.replace(b"\r\n", b"\n").replace(b"\r", b"\n").endswith(b"\n\n")

    async def start(self, message: Message) -> None:
        """Start the response."""
        async with self._lock:
            self.has_started = True
            await self._pass_on(message)

    def add(self, data: Bytes) -> None:
        """Take a piece, to be sent by the next `flush`. Never blocks."""
        if not self._is_closed:
            self._grouping.add(data)

    async def flush(self, *, everything: bool = False) -> None:
        """Send what makes messages. A checkpoint if that is several, or if the server's ``send()`` is one."""
        async with self._lock:
            if not self._is_closed:
                await self._pass_on_waiting(everything=everything)

    async def complete(self) -> None:
        """Send all that waits, and the end of the response."""
        with CancelScope(shield=self._is_whole):
            async with self._lock:
                await self._complete()

    async def _complete(self) -> None:
        if not self._is_closed:
            await self._pass_on_waiting(everything=True)
        if not self._is_closed:
            self._is_closed = True
            await self._pass_on(_body(b"", more=False))
            self.is_complete = not self._is_torn

    async def finish(self, farewell: bytes, *, is_end: bool) -> None:
        """End the stream early: send all that waits, and a last word, within `FAREWELL_BUDGET`.

        Args:
            farewell: The last word, not sent in the middle of an event.
            is_end: Whether to end the response as well. Else it is left unfinished.
        """
        self.hurry()
        with move_on_after(self._limit - current_time()):
            async with self._lock:
                if self.has_started and not self._is_closed and not self._is_torn:
                    await self._pass_on_waiting(everything=True)
                    await self._say(farewell, is_end=is_end)
        self._is_closed = True

    def hurry(self) -> None:
        """The stream is about to end: give what is being sent, and what follows, no more than the budget."""
        self._limit = min(self._limit, current_time() + FAREWELL_BUDGET)
        if self._sending is not None:
            self._sending.deadline = min(self._sending.deadline, self._limit)

    def abandon(self) -> None:
        """The client has left: drop everything."""
        self._is_closed = True
        if self._sending is not None:
            self._sending.deadline = self._limit = current_time()

    def let_go(self) -> None:
        """Let go of who listens: the stream is over."""
        self._is_closed = True
        del self._on_broken

    async def _say(self, farewell: bytes, *, is_end: bool) -> None:
        if farewell and self.is_between_events and not self._is_closed:
            await self._pass_on(_body(farewell))
        if is_end and not self._is_closed:
            await self._pass_on(_body(b"", more=False))

    async def _pass_on_waiting(self, *, everything: bool) -> None:
        while not self._is_closed and (chunk := self._grouping.take(everything=everything)):
            self._tail = (self._tail + chunk[-4:])[-4:]
            await self._pass_on(_body(chunk))
            if self.is_ready:  # no server's send() need be a checkpoint, and a piece may make many messages
                await checkpoint()

    async def _pass_on(self, message: Message) -> None:
        self._is_torn = True  # until it is through
        with CancelScope(shield=self._is_whole, deadline=self._limit) as sending:
            self._sending = sending
            if self._is_timed:  # to ask for the time is a good part of what a short piece costs
                self._be_patient(current_time() + self._timeout)
            try:
                await self._send(message)
                self._is_torn = False
            except OSError:
                self._on_broken()
                self._is_closed = True
            finally:
                self._sending = None
                if self._is_timed:
                    self._be_patient(inf)
                    self.sent_at = current_time()
        if sending.cancelled_caught:
            self._is_closed = True

    def _be_patient(self, until: float) -> None:
        if self.patience is not None:
            self.patience.deadline = until


def _body(data: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}
