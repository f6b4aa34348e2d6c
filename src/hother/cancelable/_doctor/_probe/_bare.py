"""What an application can do by itself: the proof that a server cannot do better.

Pure ASGI, without the middleware and without a framework. Beside each handler, a task listens for
what the server has to say; the handler is stopped by that, by a deadline, or by an operator.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Awaitable, Callable
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from typing import Any, TypeAlias, final

import anyio
import anyio.lowlevel

from ..._core._reasons import CancelationReason
from ..._core._token import CancelationToken
from ._handlers import CHUNK, CHUNKS
from ._witness import Receive, Scope, Send, run_of, runs

STATUSES = {"timeout": 504, "manual": 503, "shutdown": 503}
_DISCONNECTS = {"http.disconnect", "websocket.disconnect"}


@final
class Call:
    """One request, or one WebSocket. The state of a process counts those that are left."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.run = run_of(scope)
        self._receive = receive
        self._send = send
        self._is_websocket = scope["type"] == "websocket"
        self._reads = self._is_websocket or self.run.query.get("reads") != "no"
        self._work = anyio.CancelScope()
        self._listening = anyio.CancelScope()
        self._reason: str | None = None
        self._complete = anyio.Event()  #: the request's body
        self.parts: list[bytes] = []
        self.has_started = self.is_complete = False

    async def serve(self, handler: Handler) -> None:
        """Run *handler* until it ends, or has to."""
        problem: BaseException | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._listen)
            tasks.start_soon(self._obey)
            tasks.start_soon(self._time)
            try:
                with self._work:
                    await handler(self)
            except Exception as error:
                problem = error
            if self._work.cancelled_caught and self._reason in STATUSES:
                await self._say_why(self._reason)
            tasks.cancel_scope.cancel()
        if problem is not None:
            raise problem

    async def body(self) -> bytes:
        """Wait for all of the body."""
        await self._complete.wait()
        return b"".join(self.parts)

    async def send(self, message: Any) -> None:
        """Send a message."""
        if self._reason is None:
            self.has_started = True
            self.is_complete = not message.get("more_body") and message["type"] == "http.response.body"
            await self._send(message)

    async def answer(self, status: int, body: bytes) -> None:
        """Send a whole response."""
        headers = [(b"content-length", b"%d" % len(body))]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        self.is_complete = True
        await self._send({"type": "http.response.body", "body": body})

    async def piece(self, data: bytes, *, more: bool = True) -> None:
        """Send a piece of a response, with its start before the first one."""
        if not self.has_started:
            await self.send({"type": "http.response.start", "status": 200, "headers": []})
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def _say_why(self, reason: str) -> None:
        if self._is_websocket:
            self._listening.cancel()  # some servers cannot close while someone receives
            await anyio.lowlevel.checkpoint()
            await self._send({"type": "websocket.close", "code": 1013})
        elif not self.has_started:
            await self.answer(STATUSES[reason], b"")

    async def _listen(self) -> None:
        with self._listening:
            while self._reads:
                message = await self._receive()
                if message["type"] in _DISCONNECTS:
                    self._stop("disconnect")
                    return
                if message["type"] == "http.request":
                    self._take(message)

    def _take(self, message: Any) -> None:
        if message.get("body") and not self.parts:
            self.run.tell("part")
        self.parts.append(message.get("body", b""))
        if not message.get("more_body"):
            self._complete.set()

    async def _obey(self) -> None:
        self.run.token = token = CancelationToken()
        self._stop(str((await token.wait()).reason))

    async def _time(self) -> None:
        limit = float(self.run.query.get("timeout", 0))
        if limit:
            await anyio.sleep(limit)
            self._stop("timeout")

    def _stop(self, reason: str) -> None:
        if not self.is_complete or reason == "manual":
            self._reason = reason
            self._work.cancel()

    @contextmanager
    def watching(self) -> Any:
        """Tell that a handler begins, and how it ends."""
        self.run.tell("began")
        how = "finished"
        try:
            yield self.run
        except BaseException as error:
            how = type(error).__name__
            raise
        finally:
            self.run.tell("ended", how=how, reason=self._reason)


Handler: TypeAlias = Callable[[Call], Awaitable[None]]


async def _handler(call: Call) -> None:
    with call.watching() as run:
        await run.work()


async def _after_body(call: Call) -> None:
    await call.body()
    await _handler(call)


async def _upload(call: Call) -> None:
    with call.watching():
        body = await call.body()
    result = {"size": len(body), "sha256": sha256(body).hexdigest()}
    await call.answer(200, json.dumps(result).encode())


async def _started(call: Call) -> None:
    with call.watching() as run:
        await call.piece(b"first")
        run.tell("started")
        await run.work()
        await call.piece(b"last", more=False)


async def _stream(call: Call) -> None:
    with call.watching() as run:
        for number in range(1000):
            await call.piece(b".")
            if not number:
                run.tell("started")
            await anyio.sleep(0.02)


async def _flood(call: Call) -> None:
    with call.watching() as run:
        for _ in range(CHUNKS):
            run.tell("sends")
            await call.piece(CHUNK)
            await anyio.sleep(0.0005)
        await run.work()


async def _background(call: Call) -> None:
    await call.answer(200, b"{}")
    with call.watching() as run:
        await run.work(float(run.query.get("for", 0.5)))


async def _ticker(call: Call) -> None:
    await call.send({"type": "websocket.accept"})
    with call.watching():
        while True:
            await call.send({"type": "websocket.send", "text": "tick"})
            await anyio.sleep(0.02)


async def _busy(call: Call) -> None:
    await call.send({"type": "websocket.accept"})
    await _handler(call)


_HANDLERS: dict[str, Handler] = {
    "handler": _handler,
    "session": _handler,
    "cleanup": _handler,
    "thread": _handler,
    "after-body": _after_body,
    "upload": _upload,
    "started": _started,
    "stream": _stream,
    "operation-stream": _stream,
    "thread-stream": _stream,
    "lines": _stream,
    "events": _stream,
    "flood": _flood,
    "plain-flood": _flood,
    "background": _background,
    "file": _background,
    "ticker": _ticker,
    "busy": _busy,
    "talk": _ticker,
}


@cache
def _listen_for_the_end() -> None:
    """Chain SIGTERM, which is all that an application can do on every server; once."""
    before = signal.getsignal(signal.SIGTERM)

    def tell_all(number: int, frame: Any) -> None:
        for run in tuple(runs.values()):
            if run.token is not None:
                run.token.cancel(CancelationReason.SHUTDOWN)
        if callable(before):
            before(number, frame)

    with suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, tell_all)


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one connection, or the lifespan."""
    _listen_for_the_end()
    if scope["type"] == "lifespan":
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})
        return
    await Call(scope, receive, send).serve(_HANDLERS[scope["path"].lstrip("/")])
