"""The server is told to stop while requests are in flight: who hears of it, when, and what is lost."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from signal import SIGTERM
from tempfile import TemporaryFile
from time import monotonic, sleep

import pytest

from tests.servers.process import ROOT, TIMEOUT, ServerProcess
from tests.servers.raw_client import http_request, open_response, read_response
from tests.servers.shutdown_app import GRACE

APP = "tests.servers.shutdown_app:app"
LIMIT = 0.3  #: seconds: far more than it takes

Start = Callable[..., ServerProcess]


def names(server: ServerProcess) -> list[str]:
    return [event.name for event in server.events]


def exit_code(server: ServerProcess) -> int:
    """What a server returns that was stopped with SIGTERM, and not killed."""
    return -SIGTERM if server.kind.server == "uvicorn" else 0


def test_a_handler_hears_of_the_end_at_once_and_is_stopped_after_its_grace(
    start_server: Start, key: str
) -> None:
    """
    Its client gets a 503, and the application ends after the handler, not before.
    """
    server = start_server()
    with server.connect() as sock:
        http_request(sock, path=f"/wait?{key}")
        server.wait_event("running", key)

        terminated = monotonic()
        server.signal(SIGTERM)
        response = read_response(sock)

    assert server.wait() == exit_code(server)
    begun, told, stopped = [server.wait_event(name) for name in ("shutdown begins", "told", "stopped")]
    assert begun.fields["reason"] == told.fields["reason"] == "shutdown"
    assert 0 < begun.at - terminated < LIMIT
    assert 0 < told.at - terminated < LIMIT
    assert GRACE <= stopped.at - told.at < GRACE + LIMIT
    assert (response.status, response.headers["retry-after"]) == (503, "1")
    assert names(server)[-1] == "shutdown"


def test_a_stream_that_waits_for_the_end_says_goodbye(start_server: Start, key: str) -> None:
    """
    Its client gets the whole response, and nobody waits for anything.
    """
    server = start_server()
    with server.connect() as sock:
        http_request(sock, path=f"/stream?{key}")
        body = open_response(sock)
        assert b"hello" in body.read1()

        terminated = monotonic()
        server.signal(SIGTERM)
        assert b"goodbye" in body.read()

    server.wait_event("finished", key)
    assert server.wait() == exit_code(server)
    assert monotonic() - terminated < 2
    assert "stopped" not in names(server)


@pytest.mark.allow_traceback
def test_a_stream_that_knows_nothing_does_not_hold_the_server(start_server: Start, key: str) -> None:
    """
    A reload with an open stream does not hang: it is cut after its grace.
    """
    server = start_server()
    with server.connect() as sock:
        http_request(sock, path=f"/plain-stream?{key}")
        assert open_response(sock).read1()

        terminated = monotonic()
        server.signal(SIGTERM)

        assert server.wait() == exit_code(server)
        assert GRACE <= monotonic() - terminated < 3
    assert "shutdown" in names(server)


def test_a_route_may_take_its_time(start_server: Start, key: str) -> None:
    """
    Its policy lets it finish, and its token says nothing.
    """
    server = start_server()
    with server.connect() as sock:
        http_request(sock, path=f"/soon?{key}")
        server.wait_event("running", key)
        server.signal(SIGTERM)
        response = read_response(sock)

    assert server.wait() == exit_code(server)
    assert (response.status, response.body) == (200, b'{"cancelled":false}')


@pytest.mark.allow_traceback
def test_clean_up_outlives_a_server_that_loses_patience(
    start_server: Start, server_kind: str, key: str
) -> None:
    """
    The application's own end waits for it.
    """
    if server_kind == "hypercorn-asyncio" and sys.version_info >= (3, 12):
        pytest.skip("Hypercorn waits for every connection here, whatever the grace")
    server = start_server(grace=1 if server_kind.startswith("uvicorn") else 0.3)
    with server.connect() as sock:
        http_request(sock, path=f"/slow-clean-up?{key}")
        server.wait_event("running", key)
        server.signal(SIGTERM)

        assert server.wait() == exit_code(server)

    assert names(server)[-3:] == ["cleaned up", "stopped", "shutdown"]


def test_a_websocket_is_closed(start_server: Start, key: str) -> None:
    """
    With the code for a restart: 1012.
    """
    server = start_server()
    with server.connect_websocket(f"/ws?{key}") as connection:
        server.wait_event("running", key)
        server.signal(SIGTERM)

        with pytest.raises(Exception, match="1012"):
            connection.recv(timeout=5)

    assert server.wait() == exit_code(server)
    server.wait_event("stopped", key)


# --- Command lines, which have processes and signals of their own

COMMANDS = {
    "hypercorn": "hypercorn -b 127.0.0.1:0",
    "hypercorn-trio": "hypercorn -k trio -b 127.0.0.1:0",
    "hypercorn-one-process": "hypercorn -w 0 -b 127.0.0.1:0",
    "uvicorn": "uvicorn --no-access-log --port 0",
    "uvicorn-workers": "uvicorn --no-access-log --port 0 --workers 2",
    "uvicorn-reload": "uvicorn --no-access-log --port 0 --reload --reload-dir docs",
}


@contextmanager
def running(command: str) -> Iterator[tuple[ServerProcess, int]]:
    """Run a server's command line, and find out its port."""
    module, *arguments = command.split()
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    with TemporaryFile() as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments, APP],
            env=os.environ | {"PYTHONPATH": path},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
        with process:
            server = ServerProcess(
                "uvicorn-asyncio" if module == "uvicorn" else module + "-asyncio", process, stderr
            )
            try:
                server.wait_event("startup", timeout=3 * TIMEOUT)
                yield server, find_port(server)
            finally:
                server.stop()


def find_port(server: ServerProcess) -> int:
    end = monotonic() + TIMEOUT
    while not (found := re.search(r"running on http://127.0.0.1:(\d+)", server.stderr_text(), re.IGNORECASE)):
        assert monotonic() < end, server.stderr_text()
        sleep(0.01)
    return int(found[1])


def connect(port: int) -> socket.socket:
    """Connect to a server that may have bound its socket, and not listen yet."""
    end = monotonic() + TIMEOUT
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
        except ConnectionRefusedError:
            assert monotonic() < end
            sleep(0.05)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_line_passes_it_on(command: str, key: str) -> None:
    """
    Whether its workers get a signal or not; without a limit for the shutdown, too.
    """
    with running(COMMANDS[command]) as (server, port):
        with connect(port) as sock:
            http_request(sock, path=f"/stream?{key}")
            body = open_response(sock)
            assert b"hello" in body.read1()

            terminated = monotonic()
            server.signal(SIGTERM)

            assert b"goodbye" in body.read()
        server.wait()
        assert server.wait_event("shutdown begins").at - terminated < 1
        assert names(server)[-1] == "shutdown"
    assert monotonic() - terminated < 4
