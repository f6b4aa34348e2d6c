"""Where nobody can see a client leave, the server's log says so."""

from __future__ import annotations

from time import monotonic, sleep

import pytest

from tests.servers.process import TIMEOUT, ServerProcess

APP = "tests.servers.unread_app:app"
LINE = "nobody can see that client leave"


def upload(server: ServerProcess) -> None:
    """Send a part of an upload, and wait for the answer."""
    with server.connect() as sock:
        head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8000000\r\n\r\n"
        sock.sendall(head + bytes(200_000))
        assert sock.recv(1000).startswith(b"HTTP/1.1 200")


@pytest.mark.allow_traceback("another task is currently sending")  # Hypercorn's Trio worker, as we close
def test_a_body_that_is_not_read_is_said_to_hide_the_client(server: ServerProcess) -> None:
    """
    Once.
    """
    upload(server)
    upload(server)

    deadline = monotonic() + TIMEOUT
    while LINE not in server.stderr_text() and monotonic() < deadline:
        sleep(0.05)
    assert server.stderr_text().count(LINE) == 1
