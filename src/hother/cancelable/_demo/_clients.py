"""The clients: they connect with real sockets, and hang up with no more ado than a closed laptop."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Awaitable, Callable
from hashlib import sha256

import anyio
from anyio.abc import SocketStream
from anyio.streams.buffered import BufferedByteStream

from ._journal import RUN_HEADER
from ._runs import Run

PATIENCE = 0.45
"""How long after its handler began a client hangs up, in seconds."""

KIB = 1024
_PARTS = (1, 1000, 4096, 65_536, 7, 30_000)  # sizes of the parts of an upload, over and over

FAILURES = (
    OSError,
    anyio.BrokenResourceError,
    anyio.EndOfStream,
    anyio.IncompleteRead,
    ValueError,  # the answer is not what it should be
)
"""What clients raise when the server fails them."""

_UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def hang_up(path: str, method: str = "GET") -> Callable[[Run, int], Awaitable[None]]:
    """Make a client that asks for *path* and loses patience."""

    async def client(run: Run, port: int) -> None:
        async with await _connect(port) as stream:
            await stream.send(_head(run, method, path))
            await _lose_patience(run, stream)

    return client


async def hang_up_on_websocket(run: Run, port: int) -> None:
    """Open the WebSocket ``/ticker``, and break the connection without a close frame."""
    async with await _connect(port) as stream:
        await stream.send(_head(run, "GET", "/ticker", **_UPGRADE))
        await _lose_patience(run, stream)


async def hang_up_in_mid_upload(run: Run, port: int) -> None:
    """Announce 64 KiB, send half of them, faster than they are stored, and hang up."""
    async with await _connect(port) as stream:
        await stream.send(_head(run, "PUT", "/upload?pace=0.04", **{"Content-Length": str(64 * KIB)}))
        await stream.send(bytes(KIB))
        await run.has_begun.wait()
        for _ in range(31):
            await stream.send(bytes(KIB))
        await _lose_patience(run, stream)


async def upload_all(run: Run, port: int) -> None:
    """Upload a MiB in chunks of many sizes, and see whether it has arrived as it was."""
    body = os.urandom(KIB * KIB)
    async with await _connect(port) as stream:
        await stream.send(_head(run, "PUT", "/upload", **{"Transfer-Encoding": "chunked"}))
        start = number = 0
        while start < len(body):
            part = body[start : start + _PARTS[number % len(_PARTS)]]
            await stream.send(b"%x\r\n%b\r\n" % (len(part), part))
            start, number = start + len(part), number + 1
        await stream.send(b"0\r\n\r\n")
        answer = await _answer(stream)
    if answer != {"size": len(body), "sha256": sha256(body).hexdigest()}:
        run.failure = f"the body did not arrive as it was sent: {answer}"


async def order_and_leave(run: Run, port: int) -> None:
    """Place an order, and hang up as soon as it is confirmed, while it is still being fulfilled."""
    async with await _connect(port) as stream:
        await stream.send(_head(run, "POST", "/order", **{"Content-Length": "0"}))
        await _answer(stream)
        run.left_at = time.monotonic()


async def wait_until_up(port: int) -> str | None:
    """Wait until the server answers. It may be starting: its port is open already.

    Returns:
        What is wrong with its answer, if anything.
    """
    try:
        async with await _connect(port) as stream:
            await stream.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await _answer(stream)
    except FAILURES as error:
        return str(error) or repr(error)
    return None


async def _connect(port: int) -> SocketStream:
    return await anyio.connect_tcp("127.0.0.1", port)


def _head(run: Run, method: str, path: str, **headers: str) -> bytes:
    lines = {"Host": "localhost", RUN_HEADER: run.id, **headers}
    return "\r\n".join(
        [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in lines.items()), "", ""]
    ).encode()


async def _lose_patience(run: Run, stream: SocketStream) -> None:
    await run.has_begun.wait()
    with anyio.move_on_after(PATIENCE):
        async for _ in stream:
            pass
    run.left_at = time.monotonic()


async def _answer(stream: SocketStream) -> object:
    """Read a response whose head says how long its body is."""
    buffered = BufferedByteStream(stream)
    head = (await buffered.receive_until(b"\r\n\r\n", 64 * KIB)).decode().lower()
    status = head.partition("\r\n")[0].partition(" ")[2]
    if not status.startswith("200"):
        raise ValueError(f"the server answered {status}")
    size = int(head.partition("content-length:")[2].partition("\r\n")[0])
    return json.loads(await buffered.receive_exactly(size))
