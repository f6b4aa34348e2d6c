"""A server in a process of its own: started, watched, and ended, whatever happens."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, final

import anyio
from anyio import CancelScope, to_thread

from ._http1 import ask
from ._servers import Server

TIME_TO_START = 30.0
"""How long a server may take to start, in seconds: the machine may be starting several."""

_TIME_TO_END = 6.0
_GUARD = Path(__file__).with_name("_guard.py")
_PACKAGES = str(Path(__file__).parents[3])  # where this library is
_OURS = str(Path(__file__).parents[1])
_TRACEBACK = "Traceback (most recent call last)"
_FRAME_OF_OURS = re.compile(rf'File "{re.escape(_OURS)}\W(?!_doctor\b)')


class CannotStart(Exception):
    """A server did not start."""


class ServerEnded(Exception):
    """A server has ended by itself, in the middle of a scenario.

    Args:
        log: What it has logged in that.
    """

    def __init__(self, log: str) -> None:
        self.may_be_ours = _FRAME_OF_OURS.search(log) is not None  #: the middleware's code is in a traceback
        why = tracebacks_in(log)[-1:] or log.splitlines()[-1:] or ["it logged nothing"]
        super().__init__(f"the server ended by itself: {why[0]}")


@final
class Process:
    """A running server. Made by `running`."""

    def __init__(self, server: Server, port: int, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
        self.server = server
        self.port = port
        self._process = process
        self._log = log

    @property
    def has_ended(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    @property
    def log_size(self) -> int:
        """How much it has logged, in bytes."""
        return os.fstat(self._log.fileno()).st_size

    def log(self, start: int = 0) -> str:
        """Return what it has logged since its log had *start* bytes."""
        return os.pread(self._log.fileno(), self.log_size - start, start).decode(errors="replace")

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self._process.send_signal(signal.SIGTERM)

    async def wait(self, seconds: float) -> bool:
        """Wait until it has ended, for *seconds* at most. Returns whether it has."""
        with anyio.move_on_after(seconds):
            while not self.has_ended:  # noqa: ASYNC110 (processes have no event on every loop)
                await anyio.sleep(0.02)
        return self.has_ended

    async def end(self) -> None:
        """End it, with all of its workers."""
        with CancelScope(shield=True):
            assert self._process.stdin is not None
            self._process.stdin.close()  # its guard kills it
            await self.wait(_TIME_TO_END)
            self._process.kill()
            await to_thread.run_sync(self._process.wait)


@asynccontextmanager
async def running(
    server: Server, app: str, environment: Mapping[str, str], *, directory: str | None = None
) -> AsyncGenerator[Process, None]:
    """Run *server* for the length of a block.

    Args:
        server: Which one.
        app: What it serves, as ``module:attribute``.
        environment: Variables for its process, besides ours.
        directory: Where it runs, and where modules are looked for first.

    Raises:
        CannotStart: If it does not answer.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener, TemporaryFile() as log:
        port: int = listener.getsockname()[1]
        command = server.command_for(app, descriptor=listener.fileno(), port=port)
        if not any("{fd}" in part for part in server.command):
            listener.close()  # it opens the port itself
        process = subprocess.Popen(  # noqa: ASYNC220 (no loop's own processes: they need a child watcher)
            [sys.executable, str(_GUARD), *command],
            env={**os.environ, "PYTHONPATH": _python_path(directory), "PYTHONUNBUFFERED": "1", **environment},
            cwd=directory or "/",  # in a package's directory, Granian makes other names of modules
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=() if listener.fileno() < 0 else (listener.fileno(),),
            start_new_session=True,  # Ctrl-C is for us, who end them
        )
        started = Process(server, port, process, log)
        try:
            await _wait_until_up(started)
            listener.close()
            yield started
        finally:
            await started.end()


async def failure_of(code: str, argument: str, *, directory: str) -> str | None:
    """Run *code* as servers run applications, in a process of its own: what is wrong there is said once.

    Returns:
        What it has written, if it fails within `TIME_TO_START`.
    """
    with anyio.move_on_after(TIME_TO_START):
        result = await anyio.run_process(
            [sys.executable, "-c", code, argument],
            env={**os.environ, "PYTHONPATH": _python_path(directory)},
            cwd=directory,
            check=False,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for us, who end it
        )
        if result.returncode:
            return result.stdout.decode(errors="replace").strip() or f"exit code {result.returncode}"
    return None


def tracebacks_in(log: str) -> list[str]:
    """Return what the tracebacks of a log end with: the line that names the exception."""
    found: list[str] = []
    for part in log.split(_TRACEBACK)[1:]:
        named = re.search(r"^(?:\s*\|)?\s*((?:\w+\.)*[A-Z]\w+(?:: .*)?)$", part, re.MULTILINE)
        found.append(named.group(1)[:200] if named else "an exception")
    return found


def _python_path(first: str | None) -> str:
    return os.pathsep.join(dict.fromkeys(filter(None, [first, _PACKAGES, *sys.path])))


async def _wait_until_up(process: Process) -> None:
    give_up_at = anyio.current_time() + TIME_TO_START
    while not process.has_ended and anyio.current_time() < give_up_at:
        with suppress(OSError, EOFError):
            if await ask(process.port, "ping", seconds=1.0) == "pong":
                return
        await anyio.sleep(0.05)
    raise CannotStart(f"{process.server.name} does not answer; its log ends with:\n{process.log()[-2000:]}")
