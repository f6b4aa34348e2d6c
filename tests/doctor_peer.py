"""A server for the doctor's scenarios that does just what a test wants, good or bad."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
from anyio.abc import SocketAttribute, SocketStream, TaskStatus

from hother.cancelable._doctor._journal import Journal
from hother.cancelable._doctor._servers import SERVERS

CLEAN = {"objects": {}, "tasks": [], "bare": 0, "cpu": [0.0, 0.0]}


def answer(status: int = 200, body: bytes = b"{}") -> bytes:
    """Return a whole response."""
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


class Peer:
    """Stands for the process of a server.

    Args:
        journal: Where it tells what happens to a run.
        events: What happens, as soon as a request is there.
        reply: What it sends then.
        orders: What it says to orders; to ``state`` that all is clean, if nothing else.
        logs: What its log says.
        delay: How long it thinks about its reply, in seconds.
    """

    server = SERVERS["hypercorn-asyncio"]
    has_ended = False

    def __init__(
        self,
        journal: Journal,
        events: Sequence[Mapping[str, Any]] = (),
        reply: bytes = b"",
        *,
        orders: Mapping[str, Any] | None = None,
        logs: str = "",
        delay: float = 0.0,
    ) -> None:
        self._journal = journal
        self._events = events
        self._reply = reply
        self._orders = {"state": CLEAN, "freeze": True, **(orders or {})}
        self._logs = logs
        self._delay = delay
        self.port = 0

    @property
    def log_size(self) -> int:
        """Nothing yet: all that is logged is new."""
        return 0

    def log(self, start: int = 0) -> str:
        """Return the log."""
        return self._logs

    def terminate(self) -> None:
        """Go on."""

    async def wait(self, seconds: float) -> bool:
        """Go on."""
        return False

    async def serve(self, *, task_status: TaskStatus[None]) -> None:
        """Listen, until cancelled."""
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
            self.port = listener.extra(SocketAttribute.local_port)
            task_status.started()
            await listener.serve(self._talk)

    async def _talk(self, stream: SocketStream) -> None:
        async with stream:
            try:
                head = await stream.receive()
                url = urlsplit(head.split(b" ", 2)[1].decode())
                if url.path.startswith("/__control__/"):
                    order = self._orders.get(url.path.rpartition("/")[2], True)
                    await stream.send(order if isinstance(order, bytes) else answer(body=_json(order)))
                else:
                    for name in parse_qs(url.query).get("run", ()):
                        self._tell(name)
                    await anyio.sleep(self._delay)
                    await stream.send(self._reply)
                while True:
                    await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                pass

    def _tell(self, name: str) -> None:
        for number, event in enumerate(self._events):
            self._journal.take({"run": name, "at": number * 0.001, **event})


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
