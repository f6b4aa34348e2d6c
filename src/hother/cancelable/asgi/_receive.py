"""The single reader: it relays what the client sends, and sees the client leave.

Invariants:

1. One call of the server's ``receive()`` is in flight at most, and none is cancelled and retried: on
   some servers that counts as a disconnect, on others two waiting calls starve each other.
2. Messages reach the application whole, in order, each once.
3. At most *read_ahead* bytes wait here, and one message more. While the buffer is full the server's
   own back-pressure holds the client back, and its leaving cannot be seen: it is in the line behind.
   Once a request's body is complete, nothing but its client's leaving can follow, and is waited for.
4. A disconnect is latched: once the messages before it are taken, every call answers with it.
5. A message that is ready is handed over without a checkpoint. Starlette's ``is_disconnected()``
   calls ``receive()`` inside a cancelled scope, and gets the truth only that way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf

import anyio
from anyio.lowlevel import checkpoint

from ._types import Message, Receive

MESSAGE_COST = 256
"""What a message counts beside its payload, in bytes: about what its dict takes."""

_DISCONNECTS = frozenset({"http.disconnect", "websocket.disconnect"})


class Reader:
    """Reads from the server, in a task of its own, what the application takes when it likes.

    Args:
        receive: The server's.
        read_ahead: How many bytes may wait here for the application.
        wait_for_demand: Read nothing before the application first asks. Made for requests with
            ``Expect: 100-continue``: reading is what tells their client to start the upload.
        on_disconnect: Called when the client has left, before anyone who waits hears of it.
    """

    def __init__(
        self,
        receive: Receive,
        *,
        read_ahead: int,
        wait_for_demand: bool,
        on_disconnect: Callable[[], None],
    ) -> None:
        self._receive = receive
        self._read_ahead = read_ahead
        self._demanded = not wait_for_demand
        self._on_disconnect = on_disconnect
        self._messages: deque[Message] = deque()
        self._buffered = 0
        self.listeners = 0  #: parts of the application that listen for the disconnect in another way
        self._waiting = 0  # calls of receive() that wait for a message
        self._is_complete = False  # a request's body
        self._disconnect: Message | None = None
        self._told = False  # whether the application has heard of it
        self._error: Exception | None = None
        # Each event is replaced as it is set: one serves all who wait at one moment.
        self._arrival = anyio.Event()
        self._room = anyio.Event()

    @property
    def has_disconnected(self) -> bool:
        """Whether the client has left."""
        return self._disconnect is not None

    @property
    def disconnect(self) -> Message | None:
        """The message that says that the client has left, if it has."""
        return self._disconnect

    @property
    def failure(self) -> Exception | None:
        """What the server raised in place of a message, if it did."""
        return self._error

    @property
    def is_awaited(self) -> bool:
        """Whether the application hears of a disconnect by itself: it waits for a message, or listens."""
        return self._waiting > 0 or self.listeners > 0

    async def run(self) -> None:
        """Read until the client has left."""
        while self._disconnect is None and self._error is None:
            await self.room()
            await self._read()

    async def receive(self) -> Message:
        """Give the application its next message: the ``receive`` that it is called with."""
        while not self._messages or self._is_body_probe():
            if self._disconnect is not None:
                return await self._answer_with(self._disconnect)
            if self._error is not None:
                raise self._error
            await self._wait()
        message = self._messages.popleft()
        self._buffered -= _cost(message)
        self._make_room()
        return message

    async def arrival(self) -> None:
        """Wait until something arrives, and leave it for the application."""
        await self._arrival.wait()

    async def room(self) -> None:
        """Wait until there is room for what arrives. Not a checkpoint if there is."""
        while not self._may_read():
            await self._room.wait()

    def close(self, farewell: Message) -> None:
        """Let go of what was not taken, and of who listens: the request is over.

        Tasks that outlive it get *farewell*, as servers answer them, instead of waiting for ever.
        """
        self._on_disconnect = lambda: None
        self._messages.clear()
        self._disconnect = self._disconnect or farewell
        self._arrival.set()

    async def _answer_with(self, disconnect: Message) -> Message:
        if self._told and not _is_probe():
            await checkpoint()  # an application that asks in a loop must not stop all others
        self._told = True
        return disconnect

    def _is_body_probe(self) -> bool:
        """Whether the caller would throw a part of the request's body away."""
        return self._messages[0]["type"] == "http.request" and _is_probe()

    async def _wait(self) -> None:
        self._waiting += 1
        self._demanded = True
        self._make_room()
        try:
            await self._arrival.wait()
        finally:
            self._waiting -= 1

    def _may_read(self) -> bool:
        return self._demanded and (self._buffered <= self._read_ahead or self._is_complete)

    async def _read(self) -> None:
        try:
            message = await self._receive()
        except Exception as error:  # the application asked for messages: it hears what became of them
            self._error = error
        else:
            self._take(message)
        arrival, self._arrival = self._arrival, anyio.Event()
        arrival.set()

    def _take(self, message: Message) -> None:
        if message["type"] in _DISCONNECTS:
            self._disconnect = message
            on_disconnect, self._on_disconnect = self._on_disconnect, lambda: None  # a circle less
            on_disconnect()
        else:
            self._is_complete = message["type"] == "http.request" and not message.get("more_body")
            self._messages.append(message)
            self._buffered += _cost(message)

    def _make_room(self) -> None:
        if self._may_read():
            room, self._room = self._room, anyio.Event()
            room.set()


def _is_probe() -> bool:
    """Whether the caller asks from a cancelled scope, as ``is_disconnected()`` does to get a quick answer."""
    return anyio.current_effective_deadline() == -inf


def _cost(message: Message) -> int:
    return MESSAGE_COST + sum(len(message.get(key) or b"") for key in ("body", "bytes", "text"))
