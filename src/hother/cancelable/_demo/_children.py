"""The child processes: started, listened to, and ended, whatever happens."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from subprocess import PIPE
from typing import final

import anyio
from anyio import CancelScope
from anyio.abc import ByteReceiveStream, Process
from anyio.streams.buffered import BufferedByteReceiveStream

from ._journal import Event

TITLES = {"asyncio": "uvicorn on asyncio", "trio": "Hypercorn on Trio"}
"""The backends, and what to call their servers."""

_PATIENCE = 2.0  # how long a child may take to exit, in seconds
_LONGEST_LINE = 65_536


@final
class Child:
    """A process that serves the app twice.

    Args:
        backend: ``"asyncio"`` or ``"trio"``.
        on_event: Called with each event of its handlers.
        on_log: Called with each line that it logs.
    """

    def __init__(
        self, backend: str, on_event: Callable[[Event], None], on_log: Callable[[str], None] | None
    ) -> None:
        self.backend = backend
        self.title = TITLES[backend]
        self.ports: dict[bool, int] = {}  #: with the middleware (True), and without it
        self.listens = anyio.Event()  #: set once the ports are known, or never will be
        self.ended = anyio.Event()
        self.log: deque[str] = deque(maxlen=20)
        self._on_event = on_event
        self._on_log = on_log or self.log.append

    async def run(self) -> None:
        """Start the process, pass on what it tells, and end it when cancelled."""
        process = await anyio.open_process(
            [sys.executable, "-m", "hother.cancelable._demo._server", self.backend],
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            start_new_session=True,  # Ctrl-C is for the parent, which ends its children itself
        )
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._read_journal, process.stdout)
                tasks.start_soon(self._read_log, process.stderr)
        finally:
            self.listens.set()
            self.ended.set()
            await _end(process)

    async def _read_journal(self, stream: ByteReceiveStream | None) -> None:
        async for line in _lines(stream):
            event = json.loads(line)
            if event["event"] == "listens":
                self.ports = {True: event["with"], False: event["without"]}
                self.listens.set()
            else:
                self._on_event(event)

    async def _read_log(self, stream: ByteReceiveStream | None) -> None:
        async for line in _lines(stream):
            self._on_log(line.decode(errors="replace"))


@asynccontextmanager
async def children(
    on_event: Callable[[Event], None], on_log: Callable[[str], None] | None = None
) -> AsyncGenerator[list[Child], None]:
    """Run a child process for each backend.

    Nothing is raised if one does not start, or ends: look at `Child.listens` and `Child.ended`.
    """
    started = [Child(backend, on_event, on_log) for backend in TITLES]
    async with anyio.create_task_group() as tasks:
        for child in started:
            tasks.start_soon(child.run)
        try:
            yield started
        finally:
            tasks.cancel_scope.cancel()


async def _end(process: Process) -> None:
    with CancelScope(shield=True):
        assert process.stdin is not None
        await process.stdin.aclose()  # the child exits
        with anyio.move_on_after(_PATIENCE):
            await process.wait()
        if process.returncode is None:
            process.kill()
        await process.aclose()


async def _lines(stream: ByteReceiveStream | None) -> AsyncIterator[bytes]:
    assert stream is not None
    buffered = BufferedByteReceiveStream(stream)
    while True:
        try:
            yield await buffered.receive_until(b"\n", _LONGEST_LINE)
        except (anyio.EndOfStream, anyio.IncompleteRead, anyio.ClosedResourceError):
            return
