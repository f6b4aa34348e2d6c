"""How far a response has got, and who may still send.

What ends a response depends on how it is sent: its last ``body`` (or ``zerocopysend``) message, its
one ``pathsend``, or, if it promised trailers, the last of those. A WebSocket ends with its ``close``,
or with the last body message of the response that denies it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Iterable
from enum import Enum
from typing import Any, Protocol

import anyio
from anyio.lowlevel import checkpoint

from ._late_scope import EagerScope, NotedScope, OpenScope, note_place, note_scope
from ._quirks import opens_no_scopes
from ._steps import first_step, go_on
from ._types import Message, Send

ENDS_ITSELF = "cancelable.ends_itself"
"""In ``http.response.start``: who sends this response ends it in its own words when it is stopped.

It promises to stop at once, and to leave unfinished what is to look unfinished. The promise does not
hold across a ``BaseHTTPMiddleware``, which makes a response of its own: that one is shut as others are.
"""


class Phase(Enum):
    """How far a response has got."""

    NOT_STARTED = "not started"
    STARTED = "started"
    DENYING = "denying"  # a WebSocket, with an HTTP response that has started
    COMPLETE = "complete"


class ResponseOwner(Protocol):
    """Whom a response belongs to."""

    @property
    def answer_timeout(self) -> float:
        """How long a message that is being sent may still take when the client has left, in seconds.

        Not 0: servers report the end of a response before they have closed its books.
        """
        ...

    def now(self) -> float:
        """Return the time on the loop's clock, in seconds."""
        ...

    def sent_late(self, message: Message) -> None:
        """The application sends to a client that has left."""
        ...

    async def closing(self, message: Message) -> None:
        """A WebSocket is about to be closed."""
        ...

    def broke(self) -> bool:
        """The server says, by raising, that the client has left (ASGI 2.4).

        Returns whether the application should know: else the message is dropped.
        """
        ...


class Response:
    """Passes the application's messages on to the server, and follows them.

    Args:
        send: The server's.
        owner: The request.
    """

    __slots__ = (
        "_closed_to_application",
        "_ends_itself",
        "_has_outcome",
        "_has_trailers",
        "_opens_no_scopes",
        "_owner",
        "_phase",
        "_send",
        "_sending",
        "is_gone",
        "status",
    )

    def __init__(self, send: Send, owner: ResponseOwner) -> None:
        self._send = send
        self._opens_no_scopes = opens_no_scopes(send)
        self._owner: ResponseOwner | None = owner
        self._phase = _NOT_STARTED
        self._closed_to_application = self._has_outcome = self._has_trailers = self._ends_itself = False
        self._sending: list[OpenScope] | None = None  # around messages that the server has not taken at once
        #: Whether the client has left. Nothing is sent to it then: a server may wait for ever for a
        #: connection that no longer is.
        self.is_gone = False
        #: The status of the HTTP response; the close code of a WebSocket that is closed.
        self.status: int | None = None

    @property
    def phase(self) -> Phase:
        """How far the response has got."""
        return self._phase

    @property
    def has_outcome(self) -> bool:
        """Whether the application's response was replaced by an outcome."""
        return self._has_outcome

    async def send(self, message: Message) -> None:
        """Send a message of the application: the ``send`` that it is called with.

        Once the client has left, or the application was stopped, the message is dropped. That is a
        checkpoint if more will follow, so that an application that does nothing but send can be
        cancelled. It is none for a whole response: frameworks send one for an error that they then
        raise again, and a cancelation would take the error's place.
        """
        # Asked now, and not when the application called us: it may have handed the coroutine to another task.
        if message["type"] in _OF_WEBSOCKETS:
            await self._send_to_websocket(message)
        elif self._closed_to_application or self.is_gone:
            await self._drop(message)
        elif (rest := self._begin_to_send(message)) is not None:
            await rest

    async def _send_to_websocket(self, message: Message) -> None:
        if message["type"] == "websocket.send":
            # Servers need not let others run meanwhile. An application that does nothing but send would
            # keep the reader from seeing that its client has left, and all other requests waiting.
            await checkpoint()
        if self._closed_to_application or self.is_gone or message["type"] == "websocket.send":
            await self._pass_on(message)
        else:
            await self._close_websocket(message, is_outcome=False)

    async def _close_websocket(self, message: Message, *, is_outcome: bool) -> None:
        assert self._owner is not None
        await self._owner.closing(message)
        if self.is_gone:  # the reader's last message was the client's farewell
            await self._drop(message)
        else:
            with anyio.move_on_after(self._owner.answer_timeout):  # nobody would see the client leave
                await self._pass_on_close(message, is_outcome=is_outcome)

    async def _pass_on_close(self, message: Message, *, is_outcome: bool) -> None:
        """Send it, with a private code (RFC 6455, 7.4.2) if the server refuses the right one.

        As daphne does: the client would wait for ever.
        """
        try:
            await self._pass_on(message, is_outcome=is_outcome)
        except OSError:
            raise
        except Exception:
            code = message.get("code", 1000)
            if code not in _REFUSED_BY_DAPHNE:
                raise
            await self._pass_on({**message, "code": code + 3000}, is_outcome=is_outcome)

    async def _drop(self, message: Message) -> None:
        if not self._closed_to_application:
            self._follow(message)  # what comes after the last message comes after a dropped one, too
            if self._owner is not None:
                self._owner.sent_late(message)
        if message.get("more_body") or message["type"].startswith("websocket."):
            await checkpoint()

    def abandon(self) -> None:
        """Do not wait for ever for the messages that are being sent."""
        for scope in self._sending or ():
            assert self._owner is not None
            scope.deadline = min(scope.deadline, self._owner.now() + self._owner.answer_timeout)

    def close(self) -> None:
        """Let go of who listens: the request is over."""
        self._owner = None
        self.is_gone = True

    def shut(self) -> None:
        """Drop what the application still sends. What it has started is left unfinished, for all to see.

        A response that ends itself is left to do so.
        """
        self._closed_to_application = not self._ends_itself

    def take_over(self) -> bool:
        """Have the outcome sent in the application's place from now on. Returns whether it may be sent."""
        may_send = self._phase not in {Phase.COMPLETE, Phase.DENYING} and not self._has_outcome
        self._closed_to_application = self._has_outcome = True
        return may_send

    async def send_outcome(self, messages: Iterable[Message]) -> None:
        """Send the messages of an outcome, after `take_over`, until the client leaves."""
        for message in messages:
            if not self.is_gone:
                if message["type"] == "websocket.close":
                    await self._close_websocket(message, is_outcome=True)
                else:
                    await self._pass_on(message, is_outcome=True)

    async def _pass_on(self, message: Message, *, is_outcome: bool = False) -> None:
        if (self._closed_to_application or self.is_gone) and not is_outcome:
            await self._drop(message)
        elif (rest := self._begin_to_send(message)) is not None:
            await rest

    def _begin_to_send(self, message: Message) -> Coroutine[Any, Any, None] | None:
        """Send a message, as far as the server takes it at once. Returns what is left, if it waits."""
        # Before it is sent, for two reasons: nobody else may start a response meanwhile, and servers
        # report the end of a response as a disconnect at once.
        self._follow(message)
        place = None if self._opens_no_scopes else note_place()
        try:
            sending = self._send(message)
            if place is None and not self._opens_no_scopes:
                return self._send_in(EagerScope(), sending)
            begun = first_step(sending)
        except OSError:
            if not self._is_refused():
                raise
            return None
        if begun is None:  # sent, without waiting: nobody had to interrupt it
            return None
        return self._send_in(note_scope() if place is None else NotedScope(*place), go_on(*begun))

    def _is_refused(self) -> bool:
        """The server refuses a message, since the client has left. Returns whether it is just dropped."""
        return self._owner is not None and not self._owner.broke()

    async def _send_in(self, scope: OpenScope, sending: Awaitable[None]) -> None:
        if self._sending is None:
            self._sending = []
        try:
            self._sending.append(scope)
            try:
                await sending
            except BaseException as error:
                if not scope.close(error):
                    raise
            else:
                scope.close(None)
            finally:
                self._sending.remove(scope)
        except OSError:
            if not self._is_refused():
                raise

    def _follow(self, message: Message) -> None:
        kind = message["type"]
        if kind in _BODIES:
            if not self._has_trailers and not message.get("more_body"):
                self._phase = _COMPLETE
        elif kind in _STARTS:
            self._phase = _STARTS[kind]
            self.status = message.get("status")
            self._has_trailers = "trailers" in message and bool(message["trailers"])
            self._ends_itself = ENDS_ITSELF in message and bool(message[ENDS_ITSELF])
        elif kind == "websocket.close":
            self._phase = _COMPLETE
            self.status = message.get("code", 1000)
        elif kind == "http.response.trailers" and not message.get("more_trailers"):
            self._phase = _COMPLETE


# What each response becomes. To find a member of an Enum takes a while below Python 3.12.
_NOT_STARTED = Phase.NOT_STARTED
_COMPLETE = Phase.COMPLETE

_STARTS = {
    "http.response.start": Phase.STARTED,
    "websocket.accept": Phase.STARTED,
    "websocket.http.response.start": Phase.DENYING,
}
_REFUSED_BY_DAPHNE = range(1001, 1015)
_OF_WEBSOCKETS = frozenset({"websocket.send", "websocket.close"})
_BODIES = frozenset(
    {
        "http.response.body",
        "http.response.pathsend",  # the whole body in one message
        "http.response.zerocopysend",
        "websocket.http.response.body",
    }
)
