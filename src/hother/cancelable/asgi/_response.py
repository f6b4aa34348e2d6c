"""How far a response has got, and who may still send.

What ends a response depends on how it is sent: its last ``body`` (or ``zerocopysend``) message, its
one ``pathsend``, or, if it promised trailers, the last of those. A WebSocket ends with its ``close``,
or with the last body message of the response that denies it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Coroutine, Iterable
from enum import Enum
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from ._late_scope import (
    EagerScope,
    NotedScope,
    OpenScope,
    note_place,
    note_place_in_trio,
    note_wait,
    this_task,
)
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


class Response(ABC):
    """Passes the application's messages on to the server, and follows them.

    A request is its own response, which is one object less for each: it fills the slots.
    """

    __slots__ = (
        "__dict__",  # for the rest, which few need: defaults on the class, and no dict as long as these hold
        "_is_open",
        "_last_kind",
        "_phase",
        "_sender",
        "_server_send",
        "status",
    )

    _server_send: Send
    _phase: Phase
    status: int | None
    """The status of the HTTP response; the close code of a WebSocket that is closed."""
    _last_kind: str | None  # of message, that ends the response; ``None``: what is rarer does
    _is_open: bool  # for the application

    # Who sends the easy way: a task (on Trio, its place), or the scope that is to interrupt it. No other may
    # meanwhile, and only where the server's ``send()`` is for HTTP, opens no scopes (on Trio, it may), and
    # one can be put in. Else it is `NOBODY`.
    _sender: Any

    _ends_itself = False

    # Why it is not open any more, if it is not:
    _is_closed_to_application = False
    _is_cut_off = False  # nobody is there to read it
    _has_outcome = False

    _sending: list[OpenScope] | None = None  # around messages that the server has not taken at once

    # --- What the request knows

    @property
    @abstractmethod
    def answer_timeout(self) -> float:
        """How long a message that is being sent may still take when the client has left, in seconds.

        Not 0: servers report the end of a response before they have closed its books.
        """

    @property
    @abstractmethod
    def is_over(self) -> bool:
        """Whether the request is over: nobody listens any more."""

    @abstractmethod
    def now(self) -> float:
        """Return the time on the loop's clock, in seconds."""

    @abstractmethod
    def sent_late(self, message: Message) -> None:
        """The application sends to a client that has left."""

    @abstractmethod
    async def closing(self, message: Message) -> None:
        """A WebSocket is about to be closed."""

    @abstractmethod
    def broke(self) -> bool:
        """The server says, by raising, that the client has left (ASGI 2.4).

        Returns whether the application should know: else the message is dropped.
        """

    # --- How far it has got

    @property
    def phase(self) -> Phase:
        """How far the response has got."""
        return self._phase

    @property
    def has_outcome(self) -> bool:
        """Whether the application's response was replaced by an outcome."""
        return self._has_outcome

    async def send(self, message: Message) -> None:  # noqa: C901 (each call would take its time)
        """Send a message of the application: the ``send`` that it is called with.

        Once the client has left, or the application was stopped, the message is dropped. That is a
        checkpoint if more will follow, so that an application that does nothing but send can be
        cancelled. It is none for a whole response: frameworks send one for an error that they then
        raise again, and a cancelation would take the error's place.
        """
        # Asked now, and not when the application called us: it may have handed the coroutine to another task.
        if self._sender is None and self._is_open:
            # Before it is sent: see `_begin_to_send`. What most messages are, `_follow` is not asked for.
            kind = message["type"]
            if kind == self._last_kind:
                if "more_body" not in message or not message["more_body"]:
                    self._phase = COMPLETE
            elif (
                kind == "http.response.start"
                and self._phase is NOT_STARTED
                and "trailers" not in message
                and ENDS_ITSELF not in message
            ):
                self._phase = STARTED
                self.status = message.get("status")
            else:
                self._follow(message)
            # No scope and no first step by hand: should anybody want to interrupt it, `abandon` knows where.
            try:
                sender = self._sender = this_task()
            except RuntimeError:  # no event loop runs: our coroutine is being closed
                sender = None
            try:
                await self._server_send(message)
            except BaseException as error:
                del sender  # the error may be kept by that very task, and its traceback keeps this frame
                if not self._has_sent(error):
                    raise
            else:
                if self._sender is sender:
                    self._sender = None
                else:
                    self._has_sent(None)
        else:
            await self._send_carefully(message)

    async def send_in_trio(self, message: Message) -> None:
        """Do what `send` does for a request over HTTP on Trio, where each message waits for something.

        So the place is noted before, and the server may open scopes there. At each turn of the loop, all
        frames are gone through: this way has one where the careful one has three.
        """
        place = None if self._sender is not None or not self._is_open else note_place_in_trio()
        if place is None:
            await self._send_carefully(message)
            return
        self._follow(message)  # before it is sent: see `_begin_to_send`
        self._sender = place
        try:
            await self._server_send(message)
        except BaseException as error:
            if not self._has_sent(error):
                raise
        else:
            if self._sender is place:
                self._sender = None
            else:
                self._has_sent(None)

    def _has_sent(self, error: BaseException | None) -> bool:
        """Take note that a message was sent the easy way. Returns whether *error* ends here."""
        sender, self._sender = self._sender, None
        if isinstance(sender, NotedScope) and sender.close(error):
            return True
        return isinstance(error, OSError) and self._is_refused()

    async def _send_carefully(self, message: Message) -> None:
        if message["type"] in _OF_WEBSOCKETS:
            await self._send_to_websocket(message)
        elif not self._is_open:
            await self._drop(message)
        elif (rest := self._begin_to_send(message)) is not None:
            await rest

    async def _send_to_websocket(self, message: Message) -> None:
        if message["type"] == "websocket.send":
            # Servers need not let others run meanwhile. An application that does nothing but send would
            # keep the reader from seeing that its client has left, and all other requests waiting.
            await checkpoint()
        if not self._is_open or message["type"] == "websocket.send":
            await self._pass_on(message)
        else:
            await self._close_websocket(message, is_outcome=False)

    async def _close_websocket(self, message: Message, *, is_outcome: bool) -> None:
        await self.closing(message)
        if self._is_cut_off:  # the reader's last message was the client's farewell
            await self._drop(message)
        else:
            with anyio.move_on_after(self.answer_timeout):  # nobody would see the client leave
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
        if not (self._is_closed_to_application or self.is_over):
            self._follow(message)  # what comes after the last message comes after a dropped one, too
            self.sent_late(message)
        if message.get("more_body") or message["type"].startswith("websocket."):
            await checkpoint()

    def abandon(self) -> None:
        """Do not wait for ever for the messages that are being sent."""
        for scope in (*(self._sending or ()), *self._scope_of_sender()):
            scope.deadline = min(scope.deadline, self.now() + self.answer_timeout)

    def _scope_of_sender(self) -> Iterable[OpenScope]:
        if self._sender is None or self._sender is NOBODY:
            return ()
        if not isinstance(self._sender, NotedScope):
            is_place = isinstance(self._sender, tuple)
            self._sender = NotedScope(*self._sender) if is_place else note_wait(self._sender)
        return (self._sender,)

    def cut_off(self) -> None:
        """Drop what is still sent: a server may wait for ever for a connection that no longer is."""
        self._is_cut_off = True
        self._is_open = False

    def shut(self) -> None:
        """Drop what the application still sends. What it has started is left unfinished, for all to see.

        A response that ends itself is left to do so.
        """
        if not self._ends_itself:
            self._close_to_application()

    def take_over(self) -> bool:
        """Have the outcome sent in the application's place from now on. Returns whether it may be sent."""
        may_send = self._phase not in {Phase.COMPLETE, Phase.DENYING} and not self._has_outcome
        self._close_to_application()
        self._has_outcome = True
        return may_send

    def _close_to_application(self) -> None:
        self._is_closed_to_application = True
        self._is_open = False

    async def send_outcome(self, messages: Iterable[Message]) -> None:
        """Send the messages of an outcome, after `take_over`, until the client leaves."""
        for message in messages:
            if not self._is_cut_off:
                if message["type"] == "websocket.close":
                    await self._close_websocket(message, is_outcome=True)
                else:
                    await self._pass_on(message, is_outcome=True)

    async def _pass_on(self, message: Message, *, is_outcome: bool = False) -> None:
        if not (self._is_open or is_outcome):
            await self._drop(message)
        elif (rest := self._begin_to_send(message)) is not None:
            await rest

    def _begin_to_send(self, message: Message) -> Coroutine[Any, Any, None] | None:
        """Send a message, as far as the server takes it at once. Returns what is left, if it waits."""
        # Before it is sent, for two reasons: nobody else may start a response meanwhile, and servers
        # report the end of a response as a disconnect at once.
        self._follow(message)
        place = note_place()
        try:
            sending = self._server_send(message)
            if place is None:
                return self._send_in(EagerScope(), sending)
            if place[3] is None:  # on Trio, where most servers wait at each message
                return self._send_in(NotedScope(*place), sending)
            begun = first_step(sending)
        except OSError:
            if not self._is_refused():
                raise
            return None
        if begun is None:  # sent, without waiting: nobody had to interrupt it
            return None
        return self._send_in(NotedScope(*place), go_on(*begun))

    def _is_refused(self) -> bool:
        """The server refuses a message, since the client has left. Returns whether it is just dropped."""
        return not (self.is_over or self.broke())

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
        if kind in _STARTS:
            self._phase = _STARTS[kind]
            self.status = message.get("status")  # now: the application may use the message again
            if "trailers" in message or self._last_kind is None:
                self._last_kind = None if message.get("trailers") else "http.response.body"
            if ENDS_ITSELF in message or self._ends_itself:
                self._ends_itself = bool(message.get(ENDS_ITSELF))
        elif kind == "websocket.close":
            self._phase = COMPLETE
            self.status = message.get("code", 1000)
        elif kind in _BODIES:
            if self._last_kind is not None and not message.get("more_body"):
                self._phase = COMPLETE
        elif kind == "http.response.trailers" and not message.get("more_trailers"):
            self._phase = COMPLETE


NOBODY = object()
"""The sender of a response that is always sent the careful way."""

# What each response becomes. To find a member of an Enum takes a while below Python 3.12.
NOT_STARTED = Phase.NOT_STARTED
STARTED = Phase.STARTED
COMPLETE = Phase.COMPLETE

_STARTS = {
    "http.response.start": STARTED,
    "websocket.accept": STARTED,
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
