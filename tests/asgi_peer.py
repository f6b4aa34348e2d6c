"""A scripted ASGI peer: the server and the client of one request, played by the test.

It decides when the next part of the body arrives, when the client leaves, when it stops reading, and
plays the habits in which servers differ (`Habits`). It also plays the referee: what a well-behaved
application never does becomes an entry in `Peer.violations`.

    peer = Peer(b"first part", more=True, habits=HYPERCORN)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, app)
        await peer.until(lambda: peer.receiving)
        peer.disconnect()
    assert peer.status is None
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import anyio
from anyio.lowlevel import checkpoint

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How one server behaves where the specification leaves it open, or is not followed."""

    name: str
    spec_version: str
    repeats_disconnect: bool  #: ``receive()`` answers a disconnect again and again, or only once
    ends_with_disconnect: bool  #: a complete response counts as a disconnect
    drops_body: bool  #: a disconnect throws away the part of the body that was not read yet
    checkpoints: bool  #: ``receive()`` and ``send()`` are checkpoints even if they need not wait
    mistakes_cancel: bool  #: a cancelled ``receive()`` is taken for a disconnect
    frees_send: bool  #: a disconnect ends a ``send()`` that waits for the client to read
    late_send: Literal["ignored", "raises", "hangs"]  #: a ``send()`` after the disconnect
    late_send_ws: Literal["ignored", "raises"]  #: the same, to a WebSocket

    def __str__(self) -> str:
        return self.name


UVICORN = Habits(
    name="uvicorn",
    spec_version="2.3",
    repeats_disconnect=True,
    ends_with_disconnect=True,
    drops_body=True,
    checkpoints=False,
    mistakes_cancel=False,
    frees_send=True,
    late_send="ignored",
    late_send_ws="raises",
)
HYPERCORN = Habits(  # on Trio; on asyncio it is less of a checkpoint
    name="hypercorn",
    spec_version="2.1",
    repeats_disconnect=False,
    ends_with_disconnect=True,
    drops_body=False,
    checkpoints=True,
    mistakes_cancel=False,
    frees_send=True,
    late_send="ignored",
    late_send_ws="ignored",
)
HYPERCORN_H2 = Habits(  # once the whole connection is gone, not only one stream of it
    name="hypercorn-h2",
    spec_version="2.1",
    repeats_disconnect=False,
    ends_with_disconnect=True,
    drops_body=False,
    checkpoints=True,
    mistakes_cancel=False,
    frees_send=True,
    late_send="hangs",
    late_send_ws="ignored",
)
GUNICORN = Habits(
    name="gunicorn",
    spec_version="2.4",
    repeats_disconnect=True,
    ends_with_disconnect=False,
    drops_body=False,
    checkpoints=False,
    mistakes_cancel=True,
    frees_send=False,
    late_send="ignored",
    late_send_ws="raises",
)
STRICT = Habits(  # no server of today, but what version 2.4 of the specification asks for
    name="spec-2.4",
    spec_version="2.4",
    repeats_disconnect=True,
    ends_with_disconnect=True,
    drops_body=False,
    checkpoints=True,
    mistakes_cancel=False,
    frees_send=True,
    late_send="raises",
    late_send_ws="raises",
)
ALL_HABITS = (UVICORN, HYPERCORN, HYPERCORN_H2, GUNICORN, STRICT)


class Peer:
    """One request or WebSocket, from the far side.

    Args:
        *body: What the client has sent by now: one ``http.request`` or ``websocket.receive`` each.
        more: Whether the client has yet to send more of the body.
        kind: ``"http"`` or ``"websocket"``.
        method: By default, ``"POST"`` if there is a body, or one to come, and else ``"GET"``.
        path: The path, decoded.
        query: The query string, without its question mark.
        headers: The request's headers.
        habits: How the server behaves.
        extensions: What the scope says about extensions.
        state: The lifespan state that the request sees.
        strict: Raise in ``receive()`` what `violations` says about it. Without it the peer puts up
            with everything, as servers do: made for tests of applications that are not ours.
    """

    def __init__(
        self,
        *body: bytes | str,
        more: bool = False,
        kind: Literal["http", "websocket"] = "http",
        method: str | None = None,
        path: str = "/",
        query: str = "",
        headers: Iterable[tuple[str, str]] = (),
        habits: Habits = UVICORN,
        extensions: dict[str, Any] | None = None,
        state: dict[str, Any] | None = None,
        strict: bool = True,
    ) -> None:
        self.habits = habits
        self.strict = strict
        self.sent: list[Message] = []  #: every message that the server took, in order
        self.sent_at: list[float] = []  #: when it did, on the loop's clock, in seconds
        self.receiving = 0  #: how many calls of ``receive()`` wait right now
        self.received = 0  #: how many messages ``receive()`` has handed over
        self.gone = False  #: whether the client has left
        self.told = False  #: whether ``receive()`` has said so
        self.complete = False  #: whether the response is, or the application closed the WebSocket
        self.returned = False  #: whether the application has returned, or raised
        self.violations: list[str] = []  #: what a well-behaved application never does
        self._inbox: deque[Message] = deque()
        self._farewell: Message = {"type": "http.disconnect"}
        self._stalled = False
        self._cancelled = False  # a receive() was cancelled before the request was over
        self._misled = False  # and the server takes that for a disconnect
        self._changed = anyio.Event()

        self.scope: dict[str, Any] = {
            "type": kind,
            "asgi": {"version": "3.0", "spec_version": habits.spec_version},
            "http_version": "2" if habits is HYPERCORN_H2 else "1.1",
            "scheme": "http" if kind == "http" else "ws",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
            "client": ("192.0.2.1", 50000),
            "server": ("192.0.2.2", 80),
            "state": {} if state is None else state,
        }
        if extensions is not None:
            self.scope["extensions"] = extensions
        if kind == "websocket":
            self.scope["subprotocols"] = []
            self._farewell = {"type": "websocket.disconnect", "code": 1005, "reason": ""}
            self._inbox.append({"type": "websocket.connect"})
            self.feed(*body)
        else:
            self.scope["method"] = method or ("POST" if body or more else "GET")
            if not body and not more:
                body = (b"",)
            self.feed(*body, more=more)

    def __repr__(self) -> str:
        gone = " gone" if self.gone else ""
        return f"<Peer {self.habits}{gone} status={self.status} sent={len(self.sent)}>"

    # What the client does. All plain functions, for use in the event loop's thread.

    def feed(self, *body: bytes | str, more: bool = False) -> None:
        """Send the next parts of the body, or the next WebSocket messages.

        Args:
            *body: One message each; a ``str`` makes a text message of a WebSocket.
            more: Whether there is still more of the body to come.
        """
        for left, part in zip(reversed(range(len(body))), body, strict=True):
            if not self._is_http:
                kind = "text" if isinstance(part, str) else "bytes"
                self.push({"type": "websocket.receive", kind: part})
            else:
                data = part.encode() if isinstance(part, str) else part
                self.push({"type": "http.request", "body": data, "more_body": more or left > 0})

    def push(self, message: Message) -> None:
        """Have ``receive()`` hand over *message*, after those that wait already."""
        assert not self.gone, "the client has left"
        self._inbox.append(message)
        self._notify()

    def disconnect(self, code: int = 1005, reason: str = "") -> None:
        """Leave. A second call does nothing.

        Args:
            code: The close code, of a WebSocket.
            reason: The close reason, of a WebSocket.
        """
        if self.gone:
            return
        self.gone = True
        if not self._is_http:
            self._farewell = {"type": "websocket.disconnect", "code": code, "reason": reason}
        self._notify()

    def stall(self) -> None:
        """Stop reading: ``send()`` blocks until `release`."""
        self._stalled = True

    def release(self) -> None:
        """Read again."""
        self._stalled = False
        self._notify()

    # What the application gets.

    async def run(self, app: ASGIApp) -> None:
        """Run *app* on this request, and check that it kept the rules.

        Raises:
            AssertionError: If there are `violations`, and the peer is strict.
        """
        try:
            await app(self.scope, self.receive, self.send)
        finally:
            self.returned = True
            self._notify()
        if self.strict:
            self.check()

    async def receive(self) -> Message:
        """ASGI's ``receive()``."""
        if self.receiving:
            self._violation("two calls of receive() at once")
        if self._cancelled and not self.over:
            self._violation("receive() called again after one was cancelled")
        self.receiving += 1
        self._notify()
        try:
            if self.habits.checkpoints:
                await checkpoint()
            await self.until(self._has_message)
        except anyio.get_cancelled_exc_class():
            self._cancelled |= not self.over
            self._misled |= self.habits.mistakes_cancel
            raise
        finally:
            self.receiving -= 1
        return self._next_message()

    async def send(self, message: Message) -> None:
        """ASGI's ``send()``."""
        self._check_order(message)
        if self.told:
            self._violation(f"{message['type']} sent after the disconnect was received", loud=False)
        if self.gone:
            await self._send_late()
        if self.habits.checkpoints:
            await checkpoint()
        await self.until(lambda: not self._stalled or (self.gone and self.habits.frees_send))
        self.sent.append(message)
        self.sent_at.append(anyio.current_time())
        self.complete = self._is_last(message)
        self._notify()

    # What the test asks for.

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until *condition* holds, which is asked again after each step of the request.

        Not a checkpoint if it holds already.
        """
        while not condition():
            await self._changed.wait()

    def check(self) -> None:
        """Check that the application has kept the rules up to now.

        Raises:
            AssertionError: If it has not.
        """
        assert not self.violations, self.violations

    @property
    def status(self) -> int | None:
        """The response's status, or ``None`` while there is none."""
        start = self._first("http.response.start", "websocket.http.response.start")
        return None if start is None else int(start["status"])

    @property
    def headers(self) -> dict[str, str]:
        """The response's headers, by their names in lower case."""
        start = self._first("http.response.start", "websocket.http.response.start") or {}
        return {
            bytes(name).decode("latin-1").lower(): bytes(value).decode("latin-1")
            for name, value in start.get("headers", ())
        }

    @property
    def chunks(self) -> list[bytes]:
        """The parts of the response's body, as they were sent."""
        bodies = ("http.response.body", "websocket.http.response.body")
        return [message.get("body", b"") for message in self.sent if message["type"] in bodies]

    @property
    def body(self) -> bytes:
        """The response's body up to now."""
        return b"".join(self.chunks)

    @property
    def json(self) -> Any:
        """The response's body, parsed."""
        return json.loads(self.body)

    @property
    def messages(self) -> list[bytes | str]:
        """What was sent to a WebSocket, up to now."""
        return [
            message["text"] if message.get("text") is not None else message["bytes"]
            for message in self.sent
            if message["type"] == "websocket.send"
        ]

    @property
    def accepted(self) -> bool:
        """Whether the WebSocket was accepted."""
        return self._first("websocket.accept") is not None

    @property
    def closed(self) -> tuple[int, str] | None:
        """The code and the reason that the application closed the WebSocket with, if it did."""
        close = self._first("websocket.close")
        return close and (close.get("code", 1000), close.get("reason") or "")

    @property
    def over(self) -> bool:
        """Whether the request is over: answered completely, or left by its client."""
        return self.gone or self.complete

    def _first(self, *types: str) -> Any:
        return next((message for message in self.sent if message["type"] in types), None)

    def _has_message(self) -> bool:
        if self.told:
            return self._is_http and self.habits.repeats_disconnect
        ended = self.complete and self.habits.ends_with_disconnect
        return bool(self._inbox) or self.gone or self._misled or ended

    def _next_message(self) -> Message:
        self.received += 1
        dropped = self._is_http and self.over and self.habits.drops_body
        if self._inbox and not dropped:
            return self._inbox.popleft()
        self.told = True
        return dict(self._farewell)

    async def _send_late(self) -> None:
        late_send = self.habits.late_send if self._is_http else self.habits.late_send_ws
        if late_send == "raises":
            raise OSError("the client has left")
        if late_send == "hangs":
            await anyio.sleep_forever()

    def _check_order(self, message: Message) -> None:
        """Refuse what every server refuses."""
        if self.complete:
            raise RuntimeError(f"{message['type']} sent after the response was complete")
        if message["type"] == "http.response.start" and self.status is not None:
            raise RuntimeError("a second http.response.start")
        if message["type"] == "http.response.body" and self.status is None:
            raise RuntimeError("http.response.body sent before http.response.start")

    def _is_last(self, message: Message) -> bool:
        match message["type"]:
            case "http.response.body" | "http.response.zerocopysend":
                return not message.get("more_body", False) and not self._has_trailers
            case "http.response.pathsend":
                return not self._has_trailers
            case "http.response.trailers":
                return not message.get("more_trailers", False)
            case "websocket.http.response.body":
                return not message.get("more_body", False)
            case "websocket.close":
                return True
            case _:
                return False

    @property
    def _has_trailers(self) -> bool:
        start = self._first("http.response.start") or {}
        return bool(start.get("trailers", False))

    @property
    def _is_http(self) -> bool:
        return bool(self.scope["type"] == "http")

    def _violation(self, what: str, *, loud: bool = True) -> None:
        self.violations.append(what)
        if self.strict and loud:
            raise AssertionError(what)

    def _notify(self) -> None:
        # Replaced as it is set: one event serves all who wait at one moment.
        changed, self._changed = self._changed, anyio.Event()
        changed.set()
