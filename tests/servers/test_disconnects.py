"""A client that leaves stops its handler, on real servers."""

from __future__ import annotations

from statistics import median
from time import monotonic
from typing import Literal

import pytest

from tests.servers.process import ServerProcess
from tests.servers.raw_client import hang_up, http_request, open_response, read_response

APP = "tests.servers.fastapi_app:app"
LIMIT = 0.5  #: seconds: far more than it takes, and far less than the handler would run


def leave(server: ServerProcess, path: str, key: str, how: Literal["fin", "rst"] = "fin") -> float:
    """Make a request, leave while its handler runs, and return how long the handler ran on."""
    sock = server.connect()
    http_request(sock, path=f"{path}?{key}")
    server.wait_event("running", key)
    left = monotonic()
    hang_up(sock, how)
    return server.wait_event("stopped", key).at - left


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("path", ["/data", "/slow", "/stream", "/plain", "/plain-stream", "/thread"])
def test_a_handler_stops_when_its_client_hangs_up(
    server: ServerProcess, key: str, path: str, how: Literal["fin", "rst"]
) -> None:
    """
    Whether it knows of tokens or not.
    """
    assert leave(server, path, key, how) < LIMIT


@pytest.mark.parametrize("path", ["/data", "/slow", "/stream"])
def test_most_handlers_stop_within_milliseconds(server: ServerProcess, key: str, path: str) -> None:
    """
    The median of twenty leaves room for a machine that is busy now and then.
    """
    assert median(leave(server, path, f"{key}-{number}") for number in range(20)) < 0.05


def test_the_handler_is_told_why(server: ServerProcess, key: str) -> None:
    """
    The token has the reason, whatever exception the backend uses.
    """
    leave(server, "/plain", key)

    assert "DISCONNECT" in server.wait_event("stopped", key).fields["reason"]


def test_a_deadline_is_answered_with_a_problem_document(server: ServerProcess, key: str) -> None:
    """
    RFC 9457.
    """
    with server.connect() as sock:
        http_request(sock, path=f"/deadline?{key}")
        response = read_response(sock)

    assert response.status == 504
    assert response.headers["content-type"] == "application/problem+json"
    assert b'"reason": "timeout"' in response.body


def test_a_client_cannot_choose_the_deadline(server: ServerProcess, key: str) -> None:
    """
    A parameter in the query string has no effect.
    """
    sock = server.connect()
    http_request(sock, path=f"/data?timeout=0.05&{key}")
    running = server.wait_event("running", f"timeout=0.05&{key}")
    sock.settimeout(0.3)

    with pytest.raises(TimeoutError):
        sock.recv(1)

    hang_up(sock)
    assert server.wait_event("stopped", f"timeout=0.05&{key}").at - running.at >= 0.3


def test_a_background_task_finishes_after_its_client_has_left(server: ServerProcess, key: str) -> None:
    """
    A complete response is not a disconnect.
    """
    sock = server.connect()
    http_request(sock, path=f"/background?{key}")
    assert read_response(sock).status == 200
    hang_up(sock)

    server.wait_event("finished", key)

    assert server.wait_event("cancelled", key).fields["value"] is False


def test_is_disconnected_tells_the_truth(server: ServerProcess, key: str) -> None:
    """
    On Trio too, where Starlette alone never sees it.
    """
    sock = server.connect()
    http_request(sock, path=f"/is-disconnected?{key}")
    server.wait_event("running", key)
    left = monotonic()
    hang_up(sock)

    assert server.wait_event("noticed", key).at - left < LIMIT


def test_a_stream_ends_in_the_middle(server: ServerProcess, key: str) -> None:
    """
    Its generator is closed where it waits.
    """
    sock = server.connect()
    http_request(sock, path=f"/stream?{key}")
    assert b"data: 0" in open_response(sock).read1()
    left = monotonic()
    hang_up(sock)

    assert server.wait_event("stopped", key).at - left < LIMIT


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_websocket_handler_that_only_sends_stops(
    server: ServerProcess, key: str, how: Literal["fin", "rst"]
) -> None:
    """
    It never asks whether anyone is there.
    """
    connection = server.connect_websocket(f"/ws/send?{key}")
    server.wait_event("running", key)
    left = monotonic()
    hang_up(connection.socket, how)

    assert server.wait_event("stopped", key).at - left < LIMIT


def test_a_websocket_handler_that_listens_says_goodbye(server: ServerProcess, key: str) -> None:
    """
    It hears of the disconnect in its own way, and may wait for something afterwards.
    """
    with server.connect_websocket(f"/ws/talk?{key}") as socket:
        socket.send("hello")
        assert socket.recv() == "hello"

    server.wait_event("said goodbye", key)


def test_a_websocket_operation_has_a_deadline(server: ServerProcess, key: str) -> None:
    """
    A call that waits is interrupted, and the close code says what it was.
    """
    with server.connect_websocket(f"/ws/cancelable?{key}") as socket:
        socket.send("hello")
        assert socket.recv() == "hello"
        with pytest.raises(Exception, match="1011"):
            socket.recv(timeout=5)
