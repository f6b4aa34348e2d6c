"""Streams on real servers: each of them ends well."""

from __future__ import annotations

import socket
from statistics import median
from time import monotonic
from typing import Literal

import pytest

from tests.event_stream import parse
from tests.servers.crowd import leave_at_random, settled_leftovers
from tests.servers.process import ServerProcess
from tests.servers.raw_client import hang_up, http_request, open_response, read_response

APP = "tests.servers.streams_app:app"
LIMIT = 0.5  #: seconds: far more than it takes
ONE_OF_EACH = ["uvicorn-asyncio", "hypercorn-trio"]

one_of_each = pytest.mark.parametrize("server_kind", ONE_OF_EACH, indirect=True, scope="module")


def request(server: ServerProcess, path: str, **headers: str) -> socket.socket:
    sock = server.connect()
    http_request(sock, path=path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    return sock


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("path", ["/stream", "/sse"])
def test_a_generator_is_closed_when_its_client_leaves(
    server: ServerProcess, key: str, path: str, how: Literal["fin", "rst"]
) -> None:
    """
    Within milliseconds.
    """
    sock = request(server, f"{path}?{key}")
    assert b"data: 0" in open_response(sock).read1()
    left = monotonic()
    hang_up(sock, how)

    assert server.wait_event("closed", key).at - left < LIMIT


@pytest.mark.parametrize("ending", ["truncate", "complete"])
def test_a_stream_that_is_out_of_time_says_so(server: ServerProcess, key: str, ending: str) -> None:
    """
    In a last event, after which the response is cut or complete: the client sees the difference.
    """
    with request(server, f"/deadline/{ending}?{key}") as sock:
        response = read_response(sock)

    *before, last = parse(response.body).events
    assert [event.data for event in before] == ["0", "1", "2"]
    assert (last.type, last.json["reason"]) == ("cancelled", "timeout")
    assert response.complete is (ending == "complete")


def test_chunks_have_their_size_and_do_not_wait_for_long(server: ServerProcess, key: str) -> None:
    """
    What is left over comes after a tenth of a second, and not with the next piece.
    """
    with request(server, f"/chunks?{key}") as sock:
        response = open_response(sock)
        start = monotonic()
        assert response.read(3) == b"abc"
        waited = monotonic() - start
        assert response.read() == b"d"

    assert waited < 0.4


def test_a_quiet_stream_has_heartbeats(server: ServerProcess, key: str) -> None:
    """
    Its generator is not disturbed.
    """
    with request(server, f"/quiet?{key}") as sock:
        source = parse(read_response(sock).body)

    assert 2 <= len(source.comments) <= 5
    assert [event.data for event in source.events] == ["late"]


def test_an_item_in_hand_is_finished(server: ServerProcess, key: str) -> None:
    """
    And no other one begun.
    """
    sock = request(server, f"/write?{key}")
    server.wait_event("begun", key)
    hang_up(sock)
    server.wait_event("written", key)
    with request(server, "/chunks") as other:
        read_response(other)  # half a second

    assert len([event for event in server.events if (event.name, event.key) == ("begun", key)]) == 1


def test_the_costs_are_read_for_a_client_who_has_left(server: ServerProcess, key: str) -> None:
    """
    The generator is closed as soon as it has told them.
    """
    sock = request(server, f"/model?{key}")
    server.wait_event("running", key)
    hang_up(sock)

    usage = server.wait_event("usage", key).at
    assert server.wait_event("closed", key).at - usage < LIMIT


def test_a_client_that_stalls_for_ever_is_let_go(server: ServerProcess, key: str) -> None:
    """
    It never reads, and never leaves.
    """
    with server.connect() as sock:
        http_request(sock, path=f"/flood?{key}")
        running = server.wait_event("running", key).at

        assert 0.4 < server.wait_event("closed", key).at - running < 5


def test_a_client_may_come_back(server: ServerProcess, key: str) -> None:
    """
    It misses nothing and gets nothing twice; then it is told not to come again.
    """
    sock = request(server, f"/count?{key}")
    first = parse(open_response(sock).read1())
    hang_up(sock)
    server.wait_event("counted", key)
    with request(server, f"/count?{key}", last_event_id=first.last_event_id) as sock:
        second = parse(read_response(sock).body)
    with request(server, f"/count?{key}", last_event_id=second.last_event_id) as sock:
        third = read_response(sock)

    data = [event.data for event in first.events + second.events]
    assert data == [str(number) for number in range(10)]
    assert third.status == 204


def _from_being_told(server: ServerProcess, key: str) -> list[float]:
    """How many seconds each generator ran on when the server had said that its client has left."""
    told, closed = (
        {event.key: event.at for event in server.events if event.name == name} for name in ("told", "closed")
    )
    return sorted(closed[each] - at for each, at in told.items() if each and each.startswith(f"{key}-"))


@one_of_each
def test_a_thousand_clients_who_leave_at_random_leave_nothing(server: ServerProcess, key: str) -> None:
    """
    Each generator is closed once, soon after its client has left; no task, file or object is left.
    """
    leave_at_random(server, "/crowd", f"warm-{key}", 50, within=0.5)
    before = settled_leftovers(server)

    latencies = leave_at_random(server, "/crowd", key, 1000, within=5)

    after = settled_leftovers(server)
    assert len(latencies) == 1000
    assert median(latencies) < 0.1
    assert latencies[-1] < 5  # on a machine that does a thousand other things
    own = _from_being_told(server, key)
    assert len(own) == 1000
    assert median(own) < 0.05, "what is ours is soon over, however late the server has told"
    assert after["twice"] == []
    assert after["tasks"] <= before["tasks"]
    assert after["files"] <= before["files"] + 1
    assert {name: number for name, number in after["objects"].items() if number} == {
        "Exchange": 1,
        "CancelationToken": 2,  # of that request, and of the shutdown to come
    }, "more than the request that counts"
