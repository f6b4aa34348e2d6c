"""The servers and the clients of these tests work, without the library."""

from __future__ import annotations

import sys
from collections.abc import Callable
from signal import SIGTERM
from time import monotonic
from typing import Literal

import httpx
import pytest

from tests.servers.process import ServerProcess
from tests.servers.raw_client import (
    hang_up,
    http_request,
    open_response,
    read_response,
    send_chunk,
)

APP = "tests.servers.bare_app:app"

Start = Callable[..., ServerProcess]


def test_a_get_is_answered(server: ServerProcess) -> None:
    """
    A client that knows nothing of these tests gets its answer.
    """
    response = httpx.get(server.url)

    assert (response.status_code, response.text) == (200, "ok")


def test_one_connection_serves_several_requests(server: ServerProcess) -> None:
    """
    The raw client keeps its connection.
    """
    with server.connect() as sock:
        for _ in range(2):
            http_request(sock)
            response = read_response(sock)
            assert (response.status, response.body, response.complete) == (200, b"ok", True)
            assert response.headers["content-length"] == "2"


def test_a_chunked_upload_is_echoed(server: ServerProcess) -> None:
    """
    A body in parts arrives as it was sent, and comes back in parts.
    """
    with server.connect() as sock:
        http_request(sock, "POST", "/echo", body_chunks=[b"one ", b"two "], finish=False)
        send_chunk(sock, b"three")
        send_chunk(sock, b"")
        response = read_response(sock)

    assert (response.body, response.complete) == (b"one two three", True)


def test_an_upload_with_a_length_is_echoed(server: ServerProcess) -> None:
    """
    A megabyte is no problem.
    """
    body = bytes(range(256)) * 4096
    with server.connect() as sock:
        http_request(sock, "POST", "/echo", {"Content-Length": str(len(body))}, [body])
        assert read_response(sock).body == body


@pytest.mark.parametrize("how", ["fin", "rst", "half"])
def test_a_waiting_application_hears_that_the_client_left(
    server: ServerProcess, key: str, how: Literal["fin", "rst", "half"]
) -> None:
    """
    Within milliseconds; the limit leaves room for a busy machine.
    """
    sock = server.connect()
    http_request(sock, path=f"/wait?{key}")
    server.wait_event("received", key)
    left = monotonic()
    hang_up(sock, how)

    disconnected = server.wait_event("disconnected", key)

    assert 0 < disconnected.at - left < 1
    sock.close()


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_client_may_leave_in_the_middle_of_a_response(
    server: ServerProcess, key: str, how: Literal["fin", "rst"]
) -> None:
    """
    The response that it was reading does not hold the connection open.
    """
    sock = server.connect()
    http_request(sock, path=f"/stream?{key}")
    assert open_response(sock).read1() == b"first"

    hang_up(sock, how)

    server.wait_event("disconnected", key)


@pytest.mark.allow_traceback("as the test asked")
def test_an_error_is_logged(server: ServerProcess) -> None:
    """
    A test that expects a traceback says so.
    """
    with server.connect() as sock:
        http_request(sock, path="/fail")
        assert read_response(sock).status == 500


def test_an_unexpected_error_fails_the_test(start_server: Start) -> None:
    """
    This is what happens to a test that does not.
    """
    server = start_server()
    with server.connect() as sock:
        http_request(sock, path="/fail")
        read_response(sock)
    server.stop()

    with pytest.raises(AssertionError, match="as the test asked"):
        server.check_log()

    server.check_log()


def test_a_websocket_talks_and_leaves(server: ServerProcess, key: str) -> None:
    """
    Only some servers pass the close code on.
    """
    with server.connect_websocket(f"/?{key}") as socket:
        socket.send("hello")
        assert socket.recv() == "hello"
        socket.close(4001, "bye")

    code = server.wait_event("disconnected", key).fields["code"]
    assert code == (4001 if server.kind.server == "uvicorn" else 1006)


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_websocket_is_lost(server: ServerProcess, key: str, how: Literal["fin", "rst"]) -> None:
    """
    Without a closing handshake too.
    """
    connection = server.connect_websocket(f"/?{key}")
    hang_up(connection.socket, how)

    assert server.wait_event("disconnected", key).fields["code"] in (1005, 1006)


def test_a_server_stops_when_told(start_server: Start) -> None:
    """
    Its application hears of the end, and nothing is killed.
    """
    server = start_server()

    started = monotonic()
    code = server.stop()

    assert code == (-SIGTERM if server.kind.server == "uvicorn" else 0)
    assert monotonic() - started < 5
    assert [event.name for event in server.events] == ["startup", "ready", "shutdown"]


@pytest.mark.allow_traceback
def test_a_grace_bounds_the_shutdown(start_server: Start, server_kind: str, key: str) -> None:
    """
    A request that does not end does not hold the server for ever.
    """
    if server_kind == "hypercorn-asyncio" and sys.version_info >= (3, 12):
        pytest.skip("Hypercorn waits for every connection here, whatever the grace")
    server = start_server(grace=0.2)
    with server.connect() as sock:
        http_request(sock, path=f"/wait?{key}")
        server.wait_event("waiting", key)

        started = monotonic()
        server.stop()

    assert monotonic() - started < 5


def test_a_missing_event_says_what_there_was_instead(server: ServerProcess) -> None:
    """
    A failed wait is easy to understand.
    """
    with pytest.raises(AssertionError, match=r"no 'nonsense'.*\n.*Event\("):
        server.wait_event("nonsense", timeout=0.01)


@pytest.mark.parametrize("server_kind", ["hypercorn-trio"], indirect=True)
def test_a_test_may_choose_its_servers(server: ServerProcess) -> None:
    """
    And it knows which one it got.
    """
    assert (server.kind.loop, server.http_version) == ("trio", "2")
