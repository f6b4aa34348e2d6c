"""What streams promise, point by point, on one server of asyncio and one of Trio."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any, Literal

import pytest

from tests.event_stream import parse
from tests.servers.process import ServerProcess
from tests.servers.raw_client import hang_up, http_request, open_response, read_response
from tests.servers.test_streams import LIMIT, ONE_OF_EACH, request

APP = "tests.servers.stream_points_app:app"

pytestmark = pytest.mark.parametrize("server_kind", ONE_OF_EACH, indirect=True, scope="module")


def ask(server: ServerProcess, path: str) -> bytes:
    with request(server, path, Connection="close") as sock:
        return read_response(sock).body


def events(server: ServerProcess, name: str, key: str) -> list[Any]:
    return [event for event in server.events if (event.name, event.key) == (name, key)]


# --- How generators end


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("kind", ["ticks", "rush", "steps"])
def test_every_kind_of_generator_hears_of_its_clients_leaving(
    server: ServerProcess, key: str, kind: str, how: Literal["fin", "rst"]
) -> None:
    """
    One that waits, one that never does, and one that runs in threads. It is told once.
    """
    sock = request(server, f"/plain/{kind}?{key}")
    assert open_response(sock).read1()
    left = monotonic()
    hang_up(sock, how)

    assert server.wait_event("closed", key).at - left < LIMIT
    sleep(0.2)
    assert len(events(server, "closed", key)) == 1
    assert len(events(server, "told", key)) == (1 if kind == "ticks" else 0)


@pytest.mark.parametrize("kind", ["rush", "steps", "ticks"])
def test_an_operator_cuts_a_stream_visibly(server: ServerProcess, key: str, kind: str) -> None:
    """
    Cleaned up in order, though its client is still there.
    """
    with request(server, f"/plain/{kind}?{key}") as sock:
        response = open_response(sock)
        server.wait_event("running", key)
        ask(server, f"/stop?{key}")
        server.wait_event("closed", key)
        with pytest.raises(Exception, match="IncompleteRead"):
            response.read()

    assert len(events(server, "closed", key)) == 1


def test_a_generator_that_swallows_its_interruption_is_not_complete(server: ServerProcess, key: str) -> None:
    """
    The client is told that it was stopped.
    """
    with request(server, f"/plain/swallow?{key}") as sock:
        server.wait_event("running", key)
        ask(server, f"/stop?{key}")
        response = read_response(sock)

    assert not response.complete
    assert parse(response.body).events[-1].json["detail"] == "stopped by an operator"


def test_time_that_runs_out_before_the_stream_is_an_answer(server: ServerProcess, key: str) -> None:
    """
    With a status: nothing was begun.
    """
    with request(server, f"/late?{key}") as sock:
        assert read_response(sock).status == 504


def test_characters_that_are_cut_arrive_whole(server: ServerProcess) -> None:
    """
    Chunks are of bytes.
    """
    with request(server, "/plain/letters") as sock:
        response = read_response(sock)

    assert response.complete
    assert response.body.decode() == "日本語 and äöü 🙂"


def test_the_item_in_hand_is_finished_after_draining(server: ServerProcess, key: str) -> None:
    """
    And no other one begun.
    """
    sock = request(server, f"/both?{key}")
    server.wait_event("begun", key)
    hang_up(sock)
    server.wait_event("written", key)
    sleep(0.6)

    assert [len(events(server, name, key)) for name in ("begun", "written")] == [1, 1]


# --- Server-sent events


def test_events_arrive_as_they_were_meant(server: ServerProcess) -> None:
    """
    With their type, id, retry and lines; and the handler has the last id of its client.
    """
    with request(server, "/framing", Last_Event_ID="6ö".encode().decode("latin-1")) as sock:
        source = parse(read_response(sock).body)

    first, second, third = source.events
    assert (first.type, first.data) == ("last-id", "6ö")
    assert (second.data, second.last_event_id) == ("one\ntwo\nthree\nfour", "7é")
    assert third.json == {"a": ["ü", 1]}
    assert source.retry == 2500
    assert source.comments == [" hello"]


HOSTILE = [
    "x" * 4000,
    "\xff\xfe",
    "." * 50,
    "a.99999999999999999999",
    "a.-1",
    "a.1\u00b2",
    ".1",
    '{"$": 1}',
    " ",
]


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("path", ["/framing", "/window"])
def test_a_hostile_last_event_id_is_one_like_others(
    server: ServerProcess, key: str, path: str, value: str
) -> None:
    """
    The stream begins.
    """
    with request(server, f"{path}?{key}", Last_Event_ID=value) as sock:
        response = open_response(sock)
        assert response.status == 200
        assert response.read1().startswith((b"event: last-id", b"id: "))


def test_clients_come_back_at_different_times_after_a_shutdown(
    start_server: Callable[..., ServerProcess], key: str
) -> None:
    """
    They are told in their last event, each for itself.
    """
    server = start_server()
    socks = [request(server, f"/farewell?{key}-{number}") for number in range(5)]
    for number in range(5):
        server.wait_event("running", f"{key}-{number}")
    server.signal(signal.SIGTERM)
    sources = [parse(read_response(sock).body) for sock in socks]
    for sock in socks:
        sock.close()

    assert {source.events[-1].json["reason"] for source in sources} == {"shutdown"}
    retries = {source.retry for source in sources}
    assert all(retry is not None and 1000 <= retry <= 4000 for retry in retries)
    assert len(retries) > 1


def test_a_feed_whose_client_does_not_come_back_is_cancelled(server: ServerProcess, key: str) -> None:
    """
    After its window, and not before; one that comes back in time keeps it going.
    """
    sock = request(server, f"/window?{key}")
    first = parse(open_response(sock).read1())
    hang_up(sock)
    sleep(0.2)
    sock = request(server, f"/window?{key}", Last_Event_ID=first.last_event_id)
    second = parse(open_response(sock).read1())
    left = monotonic()
    hang_up(sock)

    assert 0.4 < server.wait_event("closed", key).at - left < 0.5 + LIMIT
    assert int(second.events[0].data) == int(first.events[-1].data) + 1
    assert len(events(server, "running", key)) == 1


# --- Clients that stall


def test_heartbeats_do_not_keep_a_stalled_client(server: ServerProcess, key: str) -> None:
    """
    They stall as well.
    """
    with server.connect() as sock:
        http_request(sock, path=f"/stall?{key}")
        running = server.wait_event("running", key).at

        closed = server.wait_event("closed", key)

    assert 0.4 < closed.at - running < 5
    assert closed.fields["cause"] == "the client took nothing for 0.5 seconds"


# --- The examples


def test_the_model_stops_when_the_reader_leaves(server: ServerProcess, key: str) -> None:
    """
    Upstream, too; the patient reader gets all of it.
    """
    hasty = request(server, f"/tokens/chat?prompt=hasty-{key}")
    assert b"hasty" in open_response(hasty).read1()
    with request(server, f"/tokens/chat?prompt=patient-{key}") as patient:
        hang_up(hasty)
        answer = parse(read_response(patient).body)
    told = json.loads(ask(server, "/computed"))

    assert [event.type for event in answer.events].count("message") == 10
    assert told["computed"].count(f"patient-{key}") == 10
    assert told["computed"].count(f"hasty-{key}") <= 2
    assert told["aborted"] == [f"hasty-{key}"]


def test_progress_goes_on_where_the_connection_broke(server: ServerProcess) -> None:
    """
    Nothing is missed or told twice, and the report is built once.
    """
    sock = request(server, "/report/progress")
    first = parse(open_response(sock).read1())
    hang_up(sock)
    sleep(0.7)
    with request(server, "/report/progress", Last_Event_ID=first.last_event_id) as again:
        second = parse(read_response(again).body)

    assert [event.data for event in first.events + second.events] == [str(n) for n in range(10, 101, 10)]
    assert json.loads(ask(server, "/computed"))["built"] == list(range(1, 11))
