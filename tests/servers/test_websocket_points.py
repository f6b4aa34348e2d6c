"""What `CancelableWebSocket` promises, point by point, on one server of asyncio and one of Trio."""

from __future__ import annotations

import json
from time import monotonic, sleep
from typing import Literal

import pytest

from tests.servers.process import ServerProcess
from tests.servers.raw_client import hang_up, http_request, read_response
from tests.servers.test_websockets import LIMIT, UPGRADE, close_of, connect

APP = "tests.servers.websocket_points_app:app"

ENDS = {"DisconnectCancelation", "CancelledError", "Cancelled"}  #: of the call, or of the handler

pytestmark = [
    pytest.mark.parametrize(
        "server_kind", ["uvicorn-asyncio", "hypercorn-trio"], indirect=True, scope="module"
    ),
    pytest.mark.parametrize("place", ["/with", "/without"]),
]


def test_every_kind_of_message_comes_and_goes(server: ServerProcess, place: str, key: str) -> None:
    """
    Text, bytes, JSON in both modes; with a subprotocol, headers and the states that Starlette has.
    """
    with connect(server, f"{place}/kinds?{key}", subprotocols=["a", "b"]) as connection:
        assert connection.subprotocol == "b"
        assert connection.response.headers["x-place"] == "here"
        assert json.loads(connection.recv()) == ["CONNECTING", "CONNECTING", "CONNECTED", "CONNECTED"]
        for sent in ("é", b"\xff", '{"a": 1}', b'{"b": 2}'):
            connection.send(sent)
        assert [connection.recv() for _ in range(4)] == ["é!", b"\xff!", '[{"a":1}]', b'[{"b":2}]']
        assert close_of(connection) == (1000, "")


def test_iterators_hand_over_every_message(server: ServerProcess, place: str, key: str) -> None:
    """
    One after the other, and what was sent right before the client left.
    """
    with connect(server, f"{place}/iterate?{key}") as connection:
        for sent in ("1", "2", b"3", b"4", "5", '"6"'):
            connection.send(sent)
        got = [connection.recv() for _ in range(6)]
        for number in range(20):
            connection.send(str(number))
        connection.close()

    assert got == ["text '1'", "text '2'", "bytes b'3'", "bytes b'4'", "json 5", "json '6'"]
    ended = server.wait_event("ended", key)
    rest = [event.fields["rest"] for event in server.events if (event.name, event.key) == ("rest", key)]
    assert rest in ([], [[str(number) for number in range(20)]])
    assert ended.fields["cause"] == "the client disconnected"


@pytest.mark.allow_traceback("CancelationError|ManualCancelation")
@pytest.mark.parametrize("path", ["/deny", "/deny-cancelled"])
def test_a_connection_is_denied(server: ServerProcess, place: str, key: str, path: str) -> None:
    """
    With a response of the handler's, or, if it was cancelled before that, with that of the cancelation.
    """
    with server.connect() as sock:
        http_request(sock, path=f"{place}{path}?{key}", headers=UPGRADE)
        response = read_response(sock)

    assert response.status == (403 if path == "/deny" else 503)
    assert (b"members only" in response.body) is (path == "/deny")
    assert b"never sent" not in response.body
    server.wait_event("ended", key)


def test_a_flood_is_bounded_and_nothing_of_it_is_lost(server: ServerProcess, place: str, key: str) -> None:
    """
    A handler that reads slowly gets every message, in order; the client waits meanwhile.
    """
    with connect(server, f"{place}/slow-reader?{key}") as connection:
        for number in range(2000):
            connection.send(f"{number} {'x' * 1000}")
        sleep(LIMIT)  # for the handler to get through
        connection.close()

    server.wait_event("ended", key)
    numbers = [event.fields for event in server.events if (event.name, event.key) == ("numbers", key)]
    assert numbers in ([], [{"are_all": True, "count": 2000}])


@pytest.mark.parametrize("how", ["close", "fin", "rst"])
def test_a_handler_that_does_nothing_ends_with_its_client(
    server: ServerProcess, place: str, key: str, how: Literal["close", "fin", "rst"]
) -> None:
    """
    The reader in the background hears of it.
    """
    with connect(server, f"{place}/busy?{key}") as connection:
        server.wait_event("running", key)
        left = monotonic()
        if how == "close":
            connection.close()
        else:
            hang_up(connection.socket, how)
        ended = server.wait_event("ended", key)

    assert ended.at - left < LIMIT
    assert ended.fields["cause"] == "the client disconnected"


def test_sending_to_a_client_that_has_left_is_told_once_and_quietly(
    server: ServerProcess, place: str, key: str
) -> None:
    """
    No error of the server's: the fixture looks into its log.
    """
    if place == "/without":
        pytest.skip("nobody reads, without a block, and servers need not tell who sends")
    with connect(server, f"{place}/late-send?{key}") as connection:
        server.wait_event("running", key)
        hang_up(connection.socket, "rst")

        assert server.wait_event("ended", key).fields["error"] in ENDS


@pytest.mark.parametrize("speaks", [False, True])
def test_the_shorter_of_two_limits_counts(server: ServerProcess, place: str, key: str, speaks: bool) -> None:
    """
    A client that speaks is not idle, and is let go when all the time is up.
    """
    with connect(server, f"{place}/idle-or-total?{key}") as connection:
        began = monotonic()
        for _ in range(4 if speaks else 0):
            connection.send("x")
            sleep(0.1)
        code, reason = close_of(connection)
        took = monotonic() - began

    assert code == 1011
    assert reason == ("timed out after 0.6 seconds" if speaks else "the client sent nothing for 0.3 seconds")
    assert (0.6 if speaks else 0.3) - 0.05 < took < 1.5


def test_the_middleware_ends_plain_handlers_too(server: ServerProcess, place: str, key: str) -> None:
    """
    They need not know of us.
    """
    if place == "/without":
        pytest.skip("there is no middleware")
    with connect(server, f"{place}/plain?{key}") as connection:
        server.wait_event("running", key)
        left = monotonic()
        hang_up(connection.socket, "rst")

        assert server.wait_event("ended", key).at - left < LIMIT
