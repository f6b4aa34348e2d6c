"""How far a response has got, and who may still send.

What ends a response depends on how it is sent: its last ``body`` (or ``zerocopysend``) message, its
one ``pathsend``, or, if it promised trailers, the last of those. A WebSocket ends with its ``close``,
or with the last body message of the response that denies it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum

from anyio.lowlevel import checkpoint

from ._types import Message, Send


class Phase(Enum):
    """How far a response has got."""

    NOT_STARTED = "not started"
    STARTED = "started"
    COMPLETE = "complete"


class Response:
    """Passes the application's messages on to the server, and follows them.

    Args:
        send: The server's.
        is_gone: Whether the client has left. Nothing is sent to it then: a server may wait for ever
            for a connection that no longer is.
    """

    def __init__(self, send: Send, is_gone: Callable[[], bool]) -> None:
        self._send = send
        self._is_gone = is_gone
        self._phase = Phase.NOT_STARTED
        self._closed_to_application = False
        self._has_trailers = False

    @property
    def phase(self) -> Phase:
        """How far the response has got."""
        return self._phase

    async def send(self, message: Message) -> None:
        """Send a message of the application: the ``send`` that it is called with.

        Once the client has left, or the outcome was sent in the application's place, the message is
        dropped; that is a checkpoint, so that an application that does nothing but send can be cancelled.
        """
        if self._closed_to_application or self._is_gone():
            await checkpoint()
        else:
            await self._pass_on(message)

    def take_over(self) -> bool:
        """Keep the application from sending more. Returns whether the outcome may be sent in its place."""
        if self._phase is Phase.COMPLETE or self._closed_to_application:
            return False
        self._closed_to_application = True
        return True

    async def send_outcome(self, messages: Iterable[Message]) -> None:
        """Send the messages of an outcome, after `take_over`."""
        for message in messages:
            await self._pass_on(message)

    async def _pass_on(self, message: Message) -> None:
        # Before it is sent, for two reasons: nobody else may start a response meanwhile, and servers
        # report the end of a response as a disconnect at once.
        before = self._phase
        self._follow(message)
        try:
            await self._send(message)
        except BaseException:
            if message["type"].startswith("http."):
                self._phase = before  # servers wait before they write, never after: it was not sent
            raise

    def _follow(self, message: Message) -> None:
        kind = message["type"]
        if kind in _STARTS:
            self._phase = Phase.STARTED
            self._has_trailers = bool(message.get("trailers"))
        elif self._is_last(kind, message):
            self._phase = Phase.COMPLETE

    def _is_last(self, kind: str, message: Message) -> bool:
        if kind in _BODIES:
            return not message.get("more_body") and not self._has_trailers
        if kind == "http.response.trailers":
            return not message.get("more_trailers")
        return kind == "websocket.close"


_STARTS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})
_BODIES = frozenset(
    {
        "http.response.body",
        "http.response.pathsend",  # the whole body in one message
        "http.response.zerocopysend",
        "websocket.http.response.body",
    }
)
