"""WebSockets end well, on real servers: with and without the middleware."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep
from typing import Any, Literal

import pytest

from tests.servers.child import KINDS, WEBSOCKET_KINDS
from tests.servers.process import TIMEOUT, ServerProcess
from tests.servers.raw_client import hang_up, http_request, read_response

APP = "tests.servers.websocket_app:app"
LIMIT = 0.5  #: seconds: far more than it takes, and far less than the handler would run

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}

pytestmark = [
    pytest.mark.parametrize("server_kind", [*KINDS, *WEBSOCKET_KINDS], indirect=True, scope="module"),
    pytest.mark.parametrize("place", ["/with", "/without"]),
]


def connect(server: ServerProcess, path: str, **options: Any) -> Any:
    """Open a WebSocket, for the length of a block, that does nothing by itself."""
    return server.connect_websocket(path, ping_interval=None, close_timeout=1, **options)


def close_of(connection: Any) -> tuple[int, str]:
    """Wait until the server closes, and return how."""
    from websockets.exceptions import ConnectionClosed

    try:
        while True:
            connection.recv(timeout=TIMEOUT)
    except ConnectionClosed:
        return connection.close_code, connection.close_reason


@pytest.mark.parametrize("how", ["close", "fin", "rst"])
def test_a_handler_that_only_sends_ends_with_its_client(
    server: ServerProcess, place: str, key: str, how: Literal["close", "fin", "rst"]
) -> None:
    """
    By a close frame, by closing the connection, and by resetting it.
    """
    with connect(server, f"{place}/only-send?{key}") as connection:
        server.wait_event("running", key)
        assert connection.recv() == "tick"
        left = monotonic()
        if how == "close":
            connection.close(4001, "bye")
        else:
            hang_up(connection.socket, how)

        ended = server.wait_event("ended", key)
    assert ended.at - left < LIMIT
    assert ended.fields["cause"] == "the client disconnected"
    told = {4001} if how == "close" and server.kind.server == "uvicorn" else {1005}
    assert ended.fields["code"] in told


@pytest.mark.parametrize(
    ("reason", "text", "close"),
    [
        ("manual", "enough", (1013, "enough")),
        ("shutdown", "see you", (1012, "see you")),
        ("timeout", "late", (1011, "late")),
        ("disconnect", "presumed dead", (1001, "presumed dead")),
        ("condition", "chosen", (4321, "chosen")),
        ("manual", "é" * 100, (1013, "é" * 61)),
    ],
)
def test_the_client_sees_why(
    server: ServerProcess, place: str, key: str, reason: str, text: str, close: tuple[int, str]
) -> None:
    """
    In the close code and the reason, which is cut between two characters.
    """
    with connect(server, f"{place}/cancel?{key}") as connection:
        connection.send(reason)
        connection.send(text)

        assert close_of(connection) == close


@pytest.mark.parametrize(
    ("path", "close"),
    [
        ("/deadline", (1011, "timed out after 0.2 seconds")),
        ("/idle", (1011, "the client sent nothing for 0.3 seconds")),
        ("/end", (1000, "")),
    ],
)
def test_the_client_sees_how_it_ended(
    server: ServerProcess, place: str, key: str, path: str, close: tuple[int, str]
) -> None:
    """
    A time limit, a client that says nothing, a handler that returns.
    """
    with connect(server, f"{place}{path}?{key}") as connection:
        assert close_of(connection) == close


@pytest.mark.allow_traceback("as the test asked")
def test_an_error_of_the_handler_is_the_servers_to_answer(
    server: ServerProcess, place: str, key: str
) -> None:
    """
    With 1011, or by closing the connection.
    """
    with connect(server, f"{place}/fail?{key}") as connection:
        assert close_of(connection)[0] in {1006, 1011}


def test_a_client_that_speaks_is_not_idle(server: ServerProcess, place: str, key: str) -> None:
    """
    Every message starts the time anew.
    """
    with connect(server, f"{place}/idle?{key}") as connection:
        began = monotonic()
        for number in range(4):
            connection.send(str(number))
            assert connection.recv() == str(number)
            sleep(0.15)
        close_of(connection)

    assert server.wait_event("ended", key).at - began > 0.7


def test_a_silent_server_says_that_it_is_there(server: ServerProcess, place: str, key: str) -> None:
    """
    For proxies that look for messages.
    """
    with connect(server, f"{place}/keepalive?{key}") as connection:
        assert [connection.recv(), connection.recv()] == ["still here"] * 2


def test_a_client_that_does_not_read_is_let_go(server: ServerProcess, place: str, key: str) -> None:
    """
    By the time limit for sending, except where the server lets nobody interrupt it.
    """
    with server.connect() as sock:
        http_request(sock, path=f"{place}/flood?{key}", headers=UPGRADE)
        running = server.wait_event("running", key)
        cause = "the client took no message for 0.3 seconds"
        if str(server.kind) == "hypercorn-trio":
            sleep(LIMIT)
            hang_up(sock, "rst")
            cause = "the client disconnected"
        ended = server.wait_event("ended", key)

    assert ended.fields["cause"] == cause
    assert ended.at - running.at < 3


def leave(server: ServerProcess, path: str, key: str) -> None:
    with connect(server, f"{path}?{key}") as connection:
        server.wait_event("running", key)
        hang_up(connection.socket, "rst")
        server.wait_event("ended", key)


def count(server: ServerProcess, place: str) -> dict[str, int]:
    with server.connect() as sock:
        http_request(sock, path=f"{place}/leftovers", headers={"Connection": "close"})
        counted: dict[str, int] = json.loads(read_response(sock).body)
    return counted


def test_nothing_is_left_of_connections_that_were_lost(server: ServerProcess, place: str, key: str) -> None:
    """
    No task and no object of ours.
    """
    paths = [f"{place}{path}" for path in ("/only-send", "/idle", "/keepalive", "/cancel")]
    before = count(server, place)["tasks"]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: leave(server, paths[n % 4], f"{key}-{n}"), range(100)))

    deadline = monotonic() + TIMEOUT
    while (left := count(server, place)) and monotonic() < deadline:
        ours = {name: number for name, number in left.items() if name != "tasks"}
        if left["tasks"] <= before and not any(ours.values()):
            break
        sleep(0.1)
    assert left["tasks"] <= before
    assert ours == dict.fromkeys(ours, 0)
