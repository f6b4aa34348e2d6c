"""The journal, where it is read: what happened to each run, in the order in which it came."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import count
from typing import Any, TypeAlias, final

import anyio
from anyio.abc import SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from ._probe._journal import ADDRESS, BIG_FILE

Event: TypeAlias = "dict[str, Any]"

_LONGEST_LINE = 65_536


@final
class Run:
    """One request of ours, as its server tells of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.events: list[Event] = []
        self.cause_at: float | None = None  #: when that happened which should end it
        self._news = anyio.Event()

    def add(self, event: Event) -> None:
        """Take an event."""
        self.events.append(event)
        news, self._news = self._news, anyio.Event()
        news.set()

    def find(self, name: str) -> Event | None:
        """Return the first event of that name."""
        return next((event for event in self.events if event["event"] == name), None)

    def count(self, name: str) -> int:
        """Return how many events of that name there were."""
        return sum(1 for event in self.events if event["event"] == name)

    async def wait(self, name: str, seconds: float) -> Event | None:
        """Wait for an event of that name, for *seconds* at most. Returns ``None`` if there was none."""
        return await self._wait(lambda: self.find(name), seconds)

    async def wait_until_still(self, pause: float, seconds: float) -> None:
        """Wait until nothing was told for *pause* seconds."""
        with anyio.move_on_after(seconds):
            while True:
                with anyio.move_on_after(pause):
                    await self._news.wait()
                    continue
                return

    def mark_cause(self) -> None:
        """Say that what should end it happens now."""
        self.cause_at = time.monotonic()

    async def _wait(self, ask: Callable[[], Event | None], seconds: float) -> Event | None:
        with anyio.move_on_after(seconds):
            while ask() is None:
                await self._news.wait()
        return ask()


@final
class Journal:
    """Listens for what servers tell, on a port of this machine."""

    def __init__(self) -> None:
        self.port = 0
        self.file = ""  #: a file that fills every buffer
        self._runs: dict[str, Run] = {}
        self._numbers = count(1)

    @property
    def environment(self) -> dict[str, str]:
        """What servers are to know about it."""
        return {ADDRESS: str(self.port), BIG_FILE: self.file}

    @contextmanager
    def run(self) -> Generator[Run, None, None]:
        """Open a run, for the length of a block."""
        run = Run(f"r{next(self._numbers)}")
        self._runs[run.name] = run
        try:
            yield run
        finally:
            del self._runs[run.name]

    async def listen(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Take in what servers tell, until cancelled."""
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
            self.port = listener.extra(anyio.abc.SocketAttribute.local_port)
            task_status.started()
            await listener.serve(self._read)

    def take(self, event: Event) -> None:
        """Give an event to its run, if that is still open."""
        if (run := self._runs.get(event["run"])) is not None:
            run.add(event)

    async def _read(self, stream: SocketStream) -> None:
        async with stream:
            lines = BufferedByteReceiveStream(stream)
            while True:
                try:
                    line = await lines.receive_until(b"\n", _LONGEST_LINE)
                except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError):
                    return
                self.take(json.loads(line))
