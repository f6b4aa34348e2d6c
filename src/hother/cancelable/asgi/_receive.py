"""The single reader: it relays what the client sends, and sees the client leave.

Invariants:

1. One call of the server's ``receive()`` is in flight at most, and none is cancelled and retried: on
   some servers that counts as a disconnect, on others two waiting calls starve each other.
2. Messages reach the application whole, in order, each once.
3. At most *read_ahead* bytes wait here, and one message more. While the buffer is full the server's
   own back-pressure holds the client back, and its leaving cannot be seen: it is in the line behind.
   Once a request's body is complete, nothing but its client's leaving can follow, and is waited for.
4. A disconnect is latched: once the messages before it are taken, every call answers with it. So is the
   application's own closing of a WebSocket: nothing is read any more, not even to the end of the call.
   While the policy has a request go on without its client, only those hear of it who do not wait.
5. A message that is ready is handed over without a checkpoint. Starlette's ``is_disconnected()``
   calls ``receive()`` inside a cancelled scope, and gets the truth only that way.

The reader's task is started late: when the request is monitored, or when the application waits for a
message. Until then the application's own calls may take a first step in the server's ``receive()``, in
the hope that a message is ready. If it is not, the reader goes on with that very call.

On servers where that works there is no task either while nothing but the client's leaving can come: the
server's ``receive()`` is taken to where it waits, and the task is made once it need not wait any more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from math import inf
from typing import Any, Protocol

import anyio
from anyio.lowlevel import checkpoint

from ._blindness import BLIND_AFTER, say_that_it_is_unread
from ._loops import call_when_done, forget_when_done
from ._steps import Steps, after_a_turn, go_on, resume, steps_of
from ._types import Message, Receive

MESSAGE_COST = 256
"""What a message counts beside its payload, in bytes: about what its dict takes."""

_NO_BODY: Message = {"type": "http.request", "body": b"", "more_body": False}
"""What servers give for a request without a body."""

_ONLY_NO_BODY = (_NO_BODY,)
"""What the readers of such requests keep until they are asked for it: once for all of them."""

_DISCONNECTS = frozenset({"http.disconnect", "websocket.disconnect"})


class ReaderOwner(Protocol):
    """Whom a reader works for."""

    @property
    def read_ahead(self) -> int:
        """How many bytes may wait here for the application."""
        ...

    @property
    def reads_on_demand(self) -> bool:
        """Whether nothing may be read before the application first asks.

        So it is with ``Expect: 100-continue``: reading is what tells the client to start the upload.
        """
        ...

    @property
    def withholds_disconnect(self) -> bool:
        """Whether the application goes on as if its client were there, once that has left."""
        ...

    @property
    def can_step(self) -> bool:
        """Whether anybody may begin a call of the server's ``receive()``, and another task end it."""
        ...

    def start_reading(self) -> None:
        """Have `Reader.run` called, in a task of its own."""
        ...

    def stop_reading(self) -> None:
        """Cancel what runs `Reader.run`, if something does."""
        ...

    def hung_up(self) -> None:
        """The client has left; nobody who waits has heard of it yet."""
        ...


class Reader:
    """Reads from the server what the application takes when it likes.

    Args:
        receive: The server's.
        owner: The request.
    """

    __slots__ = (
        "_arrival",
        "_begun",
        "_buffered",
        "_demanded",
        "_disconnect",
        "_error",
        "_has_returned",
        "_is_complete",
        "_is_receiving",
        "_is_running",
        "_is_stopped",
        "_messages",
        "_owner",
        "_receive",
        "_room",
        "_told",
        "_trap",
        "_waiting",
        "listeners",
    )

    def __init__(self, receive: Receive, owner: ReaderOwner) -> None:
        self._receive = receive
        self._owner: ReaderOwner | None = owner
        self._messages: Sequence[Message] = ()  # a list once there are some
        self._buffered = 0
        self.listeners = 0  #: parts of the application that listen for the disconnect in another way
        self._waiting = 0  # calls of receive() that wait for a message
        self._demanded = False
        self._is_complete: bool | None = None  # a request's body
        self._disconnect: Message | None = None
        self._told = False  # whether the application has heard of it
        self._error: BaseException | None = None
        self._is_running = False  # in its task; or such a task was asked for
        self._is_stopped = False
        self._is_receiving = False  # the task is in the server's receive()
        self._has_returned: anyio.Event | None = None
        self._begun: Steps | None = None  # a call of the server's ...
        self._trap: Any = None  # ... and what it waits for, or ``None`` if that is there
        # Each event is replaced as it is set: one serves all who wait at one moment.
        self._arrival: anyio.Event | None = None
        self._room: anyio.Event | None = None

    @property
    def disconnect(self) -> Message | None:
        """The message that says that the client has left, if it has."""
        return self._disconnect

    @property
    def is_complete(self) -> bool | None:
        """Whether all of a request's body has arrived; ``None`` if nothing has."""
        return self._is_complete

    @property
    def failure(self) -> BaseException | None:
        """What the server raised in place of a message, if it did."""
        return self._error

    @property
    def is_awaited(self) -> bool:
        """Whether the application hears of a disconnect by itself: it waits for a message, or listens."""
        return self._waiting > 0 or self.listeners > 0

    async def run(self) -> None:
        """Read until the client has left, or `stop`.

        Or until there is nothing to read, if this is called again once there is.
        """
        while self._disconnect is None and self._error is None and not self._is_stopped:
            if not self._may_read():
                await self._wait_for_room()
            if self._is_complete and self._begun is None and self._read_without_task():
                return
            if self._error is None:
                await self._read()

    async def _read(self) -> None:
        self._is_receiving = True
        try:
            is_farewell = self._keep(await self._next())
        except Exception as error:  # the application asked for messages: it hears what became of them
            self._error = error
        except anyio.get_cancelled_exc_class() as error:
            if not self._is_stopped:  # it is what the server waited for that was cancelled
                self._error = error
                self._announce()
            raise
        else:
            if is_farewell:
                self._hang_up()
        finally:
            self._has_left_server()
        self._announce()

    def _next(self) -> Awaitable[Message]:
        """Call for the server's next message, or go on with a call that was begun already.

        No coroutine of its own: each request that is open would have one, for as long as it is.
        """
        if self._begun is None:
            return self._receive()
        steps, trap = self._begun, self._trap
        self._begun = self._trap = None
        return resume(steps) if trap is None else go_on(steps, trap)

    def _has_left_server(self) -> None:
        self._is_receiving = False
        if self._has_returned is not None:
            self._has_returned.set()

    async def receive(self) -> Message:
        """Give the application its next message: the ``receive`` that it is called with."""
        while not self._messages or self._is_body_probe():
            if self._disconnect is not None and not self._is_withheld():
                return await self._answer_with(self._disconnect)
            if self._error is not None:
                raise self._error
            if self._disconnect is not None or not self._take_at_once():
                await self._wait()
        message, self._messages = self._messages[0], self._messages[1:]
        self._buffered -= _cost(message)
        self._make_room()
        return {**message} if message is _NO_BODY else message

    async def _wait_for_room(self) -> None:
        with anyio.move_on_after(BLIND_AFTER):
            await self.room()
        if self._owner is not None and self._buffered > self._owner.read_ahead:
            say_that_it_is_unread(self._owner.read_ahead)
        await self.room()

    async def arrival(self) -> None:
        """Wait until something arrives, and leave it for the application."""
        arrival = self._next_arrival()
        self.start()
        await arrival.wait()

    def _next_arrival(self) -> anyio.Event:
        if self._arrival is None:
            self._arrival = anyio.Event()
        return self._arrival

    async def room(self) -> None:
        """Wait until there is room for what arrives. Not a checkpoint if there is."""
        while not self._may_read():
            if self._room is None:
                self._room = anyio.Event()
            await self._room.wait()

    def tell(self) -> None:
        """Have those who wait look again whether the disconnect is for them."""
        self._announce()

    def start(self) -> None:
        """Have the reader run, if it does not yet."""
        if not self._is_running:
            assert self._owner is not None
            self._is_running = True
            if not self._read_without_task():
                self._owner.start_reading()

    def _read_without_task(self) -> bool:
        """Read what the server has ready, and have the task be made once there is more.

        There may be no task here that could be told of the client's leaving: that is left to the reader's.

        Returns:
            Whether that works.
        """
        assert self._owner is not None
        while self._owner.can_step and self._is_to_begin() and self._may_read():
            message = self._begin()
            if message is not None:
                self._keep_unless_farewell(message)
            self._announce()
        return bool(self._is_complete) and call_when_done(self._trap, self._has_come)

    def _is_to_begin(self) -> bool:
        return self._begun is None and self._disconnect is None and self._error is None

    def _keep_unless_farewell(self, message: Message) -> None:
        if message["type"] in _DISCONNECTS:
            self._begun, self._trap = after_a_turn(message)
        else:
            self._keep(message)

    def _has_come(self, _: object) -> None:
        """What the server has waited for without a task is there."""
        if not self._is_stopped:
            assert self._owner is not None
            self._trap = None
            self._owner.start_reading()

    def stop(self) -> None:
        """Have `run` end with the call of the server's that it is in.

        To cancel its task is not enough: below Python 3.11 a task group in a middleware's ``receive()`` may
        take that for its own doing.
        """
        self._is_stopped = True

    async def end(self, farewell: Message) -> bool:
        """Read no more, and wait until nobody is in the server's ``receive()``: the connection is closed.

        Granian closes a WebSocket only then. What came before can still be taken; then comes *farewell*.
        Not a checkpoint if nobody reads.

        Returns:
            Whether the client has left meanwhile.
        """
        was_open = self._disconnect is None
        if was_open:
            self._disconnect = farewell
        self.stop()
        if self._owner is not None:
            self._owner.stop_reading()
        if self._is_receiving:
            if self._has_returned is None:  # two tasks may close at once
                self._has_returned = anyio.Event()
            await self._has_returned.wait()
        self._announce()
        return was_open and self._disconnect is not farewell

    def close(self, farewell: Message) -> None:
        """Let go of what was not taken, and of who listens: the request is over.

        Tasks that outlive it get *farewell*, as servers answer them, instead of waiting for ever.
        """
        self.stop()
        self._owner = None
        self._messages = ()
        self._error = None  # whose traceback knows our frames, and these know us
        self._disconnect = self._disconnect or farewell
        if self._is_running:
            self._announce()
            if self._begun is not None:
                # To close the call may cancel the future, which would tell a loop that may be gone.
                forget_when_done(self._trap, self._has_come)
                self._begun.close()
                self._begun = self._trap = None

    async def _answer_with(self, disconnect: Message) -> Message:
        if self._told and not _is_probe():
            await checkpoint()  # an application that asks in a loop must not stop all others
        self._told = True
        return disconnect

    def _is_withheld(self) -> bool:
        """Whether the disconnect is not for the caller, who would stop for it. Who only asks is told."""
        return self._owner is not None and self._owner.withholds_disconnect and not _is_probe()

    def _is_body_probe(self) -> bool:
        """Whether the caller would throw a part of the request's body away."""
        return self._messages[0]["type"] == "http.request" and _is_probe()

    def _take_at_once(self) -> bool:
        """Take what the server has ready. Returns whether there was something."""
        if self._is_running or self._owner is None or not self._owner.can_step:
            return False
        self._demanded = True
        if not self._may_read():
            return False
        message = self._begin()
        if message is not None and self._keep(message):
            self._hang_up()
        return self._begun is None

    def _begin(self) -> Message | None:
        """Begin a call of the server's ``receive()``. Returns the message, if it is ready."""
        steps = steps_of(self._receive())
        try:
            self._trap = steps.send(None)
            self._begun = steps
        except StopIteration as end:
            message: Message = end.value
            return message
        except Exception as error:
            self._error = error
        return None

    async def _wait(self) -> None:
        self._waiting += 1
        self._demanded = True
        arrival = self._next_arrival()
        self.start()
        self._make_room()
        try:
            await arrival.wait()
        finally:
            self._waiting -= 1

    def _may_read(self) -> bool:
        assert self._owner is not None
        if not self._demanded:
            self._demanded = not self._owner.reads_on_demand
        return self._demanded and (self._buffered <= self._owner.read_ahead or self._is_complete is True)

    def _announce(self) -> None:
        if self._arrival is not None:
            self._arrival.set()
            self._arrival = None

    def _keep(self, message: Message) -> bool:
        """Keep *message* for the application. Returns whether it says that the client has left."""
        if message["type"] in _DISCONNECTS:
            self._disconnect = message
            return True
        self._buffered += _cost(message)
        self._is_complete = message["type"] == "http.request" and not message.get("more_body")
        if isinstance(self._messages, list):
            self._messages.append(message)
        elif message == _NO_BODY and not self._messages:
            self._messages = _ONLY_NO_BODY
        else:
            self._messages = [*self._messages, message]
        return False

    def _hang_up(self) -> None:
        assert self._owner is not None
        self._owner.hung_up()

    def _make_room(self) -> None:
        if self._room is not None and self._may_read():
            self._room.set()
            self._room = None


def _is_probe() -> bool:
    """Whether the caller asks from a cancelled scope, as ``is_disconnected()`` does to get a quick answer."""
    return anyio.current_effective_deadline() == -inf


def _cost(message: Message) -> int:
    return MESSAGE_COST + sum(len(message.get(key) or b"") for key in ("body", "bytes", "text"))
