"""A scripted ASGI peer: the server and the client of one request, played by the test."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from math import inf
from traceback import StackSummary, walk_tb
from typing import Any, Literal

import anyio
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from ..asgi._types import ASGIApp, Message
from ._after import After
from ._answer import Answer
from ._habits import HYPERCORN_H2, UVICORN, Habits
from ._script import Script


class Peer(Answer):
    """One request or WebSocket, from the far side: it plays the client and the server.

    Let it follow a script, or move it from another task while the application runs::

        peer = Peer(path="/report", hang_up=After(bytes=1000), patience=1)
        await peer.run(app)
        assert peer.status == 200
        assert peer.left_behind == []

    It has the habits in which servers differ, and is the referee, too: what a well-behaved
    application never does becomes an entry in `violations`. Its methods are for the event loop's thread.

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
        hang_up: When to `disconnect`.
        half_close: When to `half_close`.
        stall: When to `stall`.
        patience: How long the application may run once its client has left, in seconds of the event
            loop's clock. Then it is cancelled, and `run` raises.
        strict: Have ``receive()`` raise what `violations` says about it, and `run` the rest. Without
            it the peer puts up with everything, as servers do.
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
        hang_up: After | None = None,
        half_close: After | None = None,
        stall: After | None = None,
        patience: float | None = None,
        strict: bool = False,
    ) -> None:
        super().__init__()
        self.habits = habits
        self.strict = strict
        self.receiving: int = 0  #: how many calls of ``receive()`` wait right now
        self.received: int = 0  #: how many messages ``receive()`` has handed over
        self.gone: bool = False  #: whether the client has left
        self.half_closed: bool = False  #: whether it has closed its side, and still reads
        self.told: bool = False  #: whether ``receive()`` has said so
        self.returned: bool = False  #: whether the application has returned, or raised
        self.gone_at: float | None = None  #: when the client left, on the loop's clock, in seconds
        self.returned_at: float | None = None  #: when the application returned, or raised
        self.violations: list[str] = []  #: what a well-behaved application never does
        self.left_behind: list[str] = []  #: the tasks that were running when the application returned
        self._hang_up = hang_up
        self._read: int | None = None  # how much of the body the client has read, once it has left
        self._inbox: deque[Message] = deque()
        self._farewell: Message = {"type": "http.disconnect"}
        self._stalled = False
        self._waits = 0  # calls of receive() that found nothing
        self._cancelled = False  # a receive() was cancelled before the request was over
        self._misled = False  # and the server takes that for a disconnect
        self._patience = patience
        self._limit: CancelScope | None = None  # while the application runs
        self._changed = anyio.Event()
        self._script = Script(
            {self.disconnect: hang_up, self.half_close: half_close, self.stall: stall},
            lambda: (self._size, len(self.sent), self._waits),
        )

        self.scope: dict[str, Any] = _scope(kind, path, query, headers, habits)
        self.scope["state"] = {} if state is None else state
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

    # --- What the client does

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
        """Have ``receive()`` hand over *message*, after those that wait already.

        Raises:
            RuntimeError: If the client has left.
        """
        if self.gone or self.half_closed:
            raise RuntimeError("a client that has left, or closed its side, sends nothing")
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
        self.gone_at = anyio.current_time()
        self._read = self._size
        if self._limit is not None:
            self._limit.deadline = self._deadline
        if not self._is_http:
            self._farewell = {"type": "websocket.disconnect", "code": code, "reason": reason}
        self._notify()

    def half_close(self) -> None:
        """Close the client's side, and go on reading. The server reports that as a disconnect, as most do."""
        self.half_closed = True
        self._notify()

    def stall(self) -> None:
        """Stop reading: ``send()`` blocks until `release`."""
        self._stalled = True

    def release(self) -> None:
        """Read again."""
        self._stalled = False
        self._notify()

    # --- What the application gets

    async def run(self, app: ASGIApp) -> None:
        """Run *app* on this request.

        Raises:
            AssertionError: If it ran on when the client had left, for longer than the peer is patient;
                or if there are `violations`, and the peer is strict.
        """
        try:
            await self._serve(app)
        finally:
            self.returned = True
            self.returned_at = anyio.current_time()
            self.left_behind = list(self._script.running_tasks())
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
            if not self._has_message():
                self._waits += 1
                self._script.advance()
            await self._until(self._has_message)
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
        if self.told and not self.half_closed:
            self._violation(f"{message['type']} sent after the disconnect was received", loud=False)
        if self.gone:
            await self._send_late()
        if self.habits.checkpoints:
            await checkpoint()
        await self._until(lambda: not self._stalled or (self.gone and self.habits.frees_send))
        self._take(message, anyio.current_time())
        self._script.advance()
        self._notify()

    # --- What the test asks for

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until *condition* holds, which is asked again after each step of the request.

        Not a checkpoint if it holds already.

        Raises:
            AssertionError: If the application has returned, and it does not hold.
        """
        await self._until(lambda: self.returned or condition())
        if not condition():
            raise AssertionError(f"the application returned before that: {self!r}")

    def check(self) -> None:
        """Check that the application has kept the rules up to now.

        Raises:
            AssertionError: If it has not.
        """
        if self.violations:
            raise AssertionError("; ".join(self.violations))

    @property
    def over(self) -> bool:
        """Whether the request is over: answered completely, or left by its client."""
        return self.gone or self.complete

    @property
    def read(self) -> bytes:
        """What the client has read of the response's body: if it has left, only what was sent before.

        If it left after so many bytes, no more than these.
        """
        limit = None if self._hang_up is None else self._hang_up.bytes
        return self.body[: self._read][: None if self._read is None else limit]

    @property
    def stopped_after(self) -> float | None:
        """How long the application ran on when its client had left, in seconds of the loop's clock.

        ``None`` if the client stayed, or left later, or the application is still running.
        """
        if self.gone_at is None or self.returned_at is None or self.returned_at < self.gone_at:
            return None
        return self.returned_at - self.gone_at

    async def _until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await self._changed.wait()

    async def _serve(self, app: ASGIApp) -> None:
        work = app(self.scope, self.receive, self.send)
        if self._patience is None:
            await self._script.run(work)
            return
        stood = StackSummary()
        with CancelScope(deadline=self._deadline) as self._limit:
            try:
                await self._script.run(work)
            except anyio.get_cancelled_exc_class() as error:
                stood = StackSummary.extract(walk_tb(error.__traceback__))
                raise
        if self._limit.cancelled_caught:
            raise AssertionError(
                f"the application still ran {self._patience:g} seconds after its client had left, here:\n"
                + "".join(stood.format())
            )

    @property
    def _deadline(self) -> float:
        return inf if self.gone_at is None or self._patience is None else self.gone_at + self._patience

    def _has_message(self) -> bool:
        if self.told:
            return self._is_http and self.habits.repeats_disconnect
        ended = self.complete and self.habits.ends_with_disconnect
        return bool(self._inbox) or self.gone or self.half_closed or self._misled or ended

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


def _scope(
    kind: str, path: str, query: str, headers: Iterable[tuple[str, str]], habits: Habits
) -> dict[str, Any]:
    return {
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
    }
