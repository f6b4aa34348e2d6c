"""A real server in a process of its own, as its test sees it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from threading import Condition, Thread
from time import monotonic, sleep
from typing import IO, TYPE_CHECKING, Any

from tests.servers.child import KINDS, WEBSOCKET_KINDS

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

TIMEOUT = 10.0
"""How long anything that must happen soon may take, in seconds."""

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Event:
    """What an application has recorded."""

    name: str
    key: str | None  #: which request it happened to
    at: float  #: when, in seconds; comparable with `time.monotonic` in the test
    fields: dict[str, Any]  #: what else there is to know


class ServerProcess:
    """A running server. Made by `running`, and usable from one thread."""

    def __init__(self, kind: str, process: subprocess.Popen[bytes], stderr: IO[bytes]) -> None:
        self.kind = {**KINDS, **WEBSOCKET_KINDS}[kind]
        self._process = process
        self._stderr = stderr
        self._checked = 0  # how much of stderr was searched for tracebacks
        self._events: list[Event] = []
        self._changed = Condition()
        self._ended = False
        self._reader = Thread(target=self._read_events, daemon=True)
        self._reader.start()

    def __repr__(self) -> str:
        return f"<ServerProcess {self.kind} pid={self.pid} returncode={self._process.poll()}>"

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.wait_event("ready").fields["port"])

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def http_version(self) -> str:
        """The highest version of HTTP that it speaks without TLS."""
        return self.kind.http_version

    @property
    def events(self) -> list[Event]:
        """All that was recorded up to now, in order."""
        with self._changed:
            return list(self._events)

    def connect(self) -> socket.socket:
        """Open a connection."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def connect_websocket(self, path: str, **options: Any) -> ClientConnection:
        """Open a WebSocket. *options* are those of `websockets.sync.client.connect`."""
        from websockets.sync.client import connect

        connection: ClientConnection = connect(f"ws://127.0.0.1:{self.port}{path}", **options)
        return connection

    def wait_event(self, name: str, key: str | None = None, timeout: float = TIMEOUT) -> Event:
        """Wait for an event, and return the first of its kind.

        Args:
            name: What it is called.
            key: Which request it happened to; ``None`` for whichever.
            timeout: How long to wait, in seconds.

        Raises:
            AssertionError: If it does not happen in time, or the server has ended without it.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._find(name, key), timeout)
            if event := self._find(name, key):
                return event
            raise AssertionError(f"no {name!r} for {key!r} {self._report()}")

    def signal(self, number: int) -> None:
        """Send the server a signal, and do not wait for what comes of it."""
        self._process.send_signal(number)

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Wait until the server has ended, and all its events have arrived.

        Args:
            timeout: How long to wait, in seconds.

        Returns:
            Its return code; negative if a signal ended it. uvicorn dies of the SIGTERM that it was
            sent, after its shutdown.

        Raises:
            subprocess.TimeoutExpired: If it goes on.
        """
        code = self._process.wait(timeout)
        self._reader.join(timeout)
        return code

    def stop(self, timeout: float = TIMEOUT) -> int:
        """Stop the server with SIGTERM, and with SIGKILL if that does not do.

        Args:
            timeout: How long SIGTERM may take, in seconds.

        Returns:
            As `wait` does.
        """
        self._process.terminate()
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self.wait(timeout)

    def stderr_text(self) -> str:
        """Return what the server has logged up to now."""
        return self._stderr_from(0)

    def check_log(self, *, allowed: str | None = None) -> None:
        """Check that no traceback was logged since the last check.

        Args:
            allowed: A pattern that makes all of them good, and that is worth waiting for a moment:
                some servers log an error only after they have answered the request.

        Raises:
            AssertionError: If there is a traceback.
        """
        end = monotonic() + 1
        while allowed and not re.search(allowed, self._stderr_from(self._checked)):
            if monotonic() > end:
                break
            sleep(0.01)
        text = self._stderr_from(self._checked)
        self._checked += len(text.encode())
        if allowed is None or not re.search(allowed, text):
            assert "Traceback (most recent call last)" not in text, text

    def _stderr_from(self, offset: int) -> str:
        # pread: the file's own position belongs to the server, which writes to it.
        size = os.fstat(self._stderr.fileno()).st_size
        return os.pread(self._stderr.fileno(), size - offset, offset).decode("ascii", "replace")

    def _find(self, name: str, key: str | None) -> Event | None:
        for event in self._events:
            if event.name == name and key in (None, event.key):
                return event
        return None

    def _report(self) -> str:
        events = "\n".join(map(str, self._events[-20:]))
        return f"from {self!r}\n{events}\n{self.stderr_text()[-5000:]}"

    def _read_events(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            parsed = json.loads(line)
            event = Event(parsed["event"], parsed["key"], parsed["at"], parsed["fields"])
            with self._changed:
                self._events.append(event)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


@contextmanager
def running(kind: str, app: str, *, grace: float | None = None) -> Iterator[ServerProcess]:
    """Run a server for the length of a block.

    Args:
        kind: A key of `KINDS` or `WEBSOCKET_KINDS`.
        app: The application, as ``module:attribute``.
        grace: How long its graceful shutdown may take, in seconds; by default what the server likes.
    """
    command = [sys.executable, "-m", "tests.servers.child", kind, app]
    if grace is not None:
        command.append(str(grace))
    # The child imports what the test can import, installed or not.
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    with TemporaryFile() as stderr:
        process = subprocess.Popen(
            command,
            env=os.environ | {"PYTHONPATH": path},
            stdin=subprocess.PIPE,  # closes when this process ends, whichever way
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
        with process:
            server = ServerProcess(kind, process, stderr)
            try:
                server.wait_event("ready", timeout=3 * TIMEOUT)
                yield server
            finally:
                server.stop()
