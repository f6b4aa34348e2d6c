"""Server-sent events: what they look like on the wire, and how their responses behave."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
from anyio import create_task_group
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hother.cancelable import Cancelable, CancelationReason
from hother.cancelable.integrations.fastapi import LastEventId
from hother.cancelable.integrations.starlette import (
    RequestCancelationMiddleware,
    ServerSentEvent,
    cancelable_sse_response,
    get_last_event_id,
    get_request_token,
)
from tests.asgi_peer import ALL_HABITS, Habits, Peer
from tests.event_stream import EventSource, parse

every_server = pytest.mark.parametrize("habits", ALL_HABITS, ids=str)

text = st.text(st.characters(codec="utf-8"))
line = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"))
events = st.builds(
    ServerSentEvent,
    data=st.none() | text | st.text("\r\n: dataé"),
    event=st.none() | line,
    id=st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0")),
    retry=st.none() | st.integers(0, 10**9),
    comment=st.none() | text,
)

# --- On the wire


def as_lines(value: str) -> str:
    return value.replace("\r\n", "\n").replace("\r", "\n")


@given(sent=st.lists(events))
def test_a_browser_gets_what_was_sent(sent: list[ServerSentEvent]) -> None:
    """
    Data line by line, types, ids that stay until the next one, and nothing of the comments.
    """
    source = parse(b"".join(event.encode() for event in sent))

    last_id, received = "", []
    for event in sent:
        last_id = last_id if event.id is None else event.id
        if event.data is not None:
            received.append((as_lines(event.data), event.event or "message", last_id))
    assert [(event.data, event.type, event.last_event_id) for event in source.events] == received
    assert source.last_event_id == last_id
    assert source.retry == next((e.retry for e in reversed(sent) if e.retry is not None), None)
    comments = [line for e in sent if e.comment is not None for line in as_lines(e.comment).split("\n")]
    assert source.comments == [f" {comment}" for comment in comments]


@given(sent=st.lists(events), cuts=st.lists(st.integers(0, 500)))
def test_it_does_not_matter_how_the_network_cuts_the_stream(
    sent: list[ServerSentEvent], cuts: list[int]
) -> None:
    """
    Of the parser, mostly: a test that uses it can feed it as it likes.
    """
    body = b"".join(event.encode() for event in sent)
    source = EventSource()
    start = 0
    for cut in sorted(cuts):
        source.feed(body[start:cut], is_end=False)
        start = max(start, cut)
    source.feed(body[start:])

    assert source.events == parse(body).events


@pytest.mark.parametrize(
    ("event", "wire"),
    [
        (ServerSentEvent("hello"), b"data: hello\n\n"),
        (ServerSentEvent(""), b"data: \n\n"),
        (ServerSentEvent("a\nb\rc\r\nd"), b"data: a\ndata: b\ndata: c\ndata: d\n\n"),
        (ServerSentEvent("a\u2028b\x0bc"), "data: a\u2028b\x0bc\n\n".encode()),  # no line ends, these
        (ServerSentEvent("x", "tick", "7", 1500), b"event: tick\nid: 7\nretry: 1500\ndata: x\n\n"),
        (ServerSentEvent(comment="a\nb"), b": a\n: b\n\n"),
        (ServerSentEvent(id=""), b"id: \n\n"),
        (ServerSentEvent.json({"é": [1, None]}, event="e"), 'event: e\ndata: {"é":[1,null]}\n\n'.encode()),
    ],
)
def test_events_on_the_wire(event: ServerSentEvent, wire: bytes) -> None:
    """
    Byte by byte.
    """
    assert event.encode() == wire


def test_a_byte_order_mark_is_dropped_by_clients_and_never_first_here() -> None:
    """
    Data may begin with one; it is not at the beginning of the stream.
    """
    assert parse("\ufeffdata: x\n\n".encode()).events[0].data == "x"
    assert parse(ServerSentEvent("\ufeffx").encode()).events[0].data == "\ufeffx"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"id": "a\0b"}, ValueError),
        ({"id": "a\nb"}, ValueError),
        ({"event": "a\rb"}, ValueError),
        ({"retry": -1}, ValueError),
        ({"retry": 1.5}, TypeError),
        ({"retry": True}, TypeError),
        ({"data": 3}, TypeError),
        ({"data": b"x"}, TypeError),
    ],
    ids=str,
)
def test_what_clients_would_ignore_or_misread_is_refused(
    arguments: dict[str, Any], error: type[Exception]
) -> None:
    """
    Where it is written, not in the middle of a stream.
    """
    with pytest.raises(error):
        ServerSentEvent(**arguments)


def test_json_that_browsers_cannot_read_is_refused() -> None:
    """
    NaN is none.
    """
    with pytest.raises(ValueError, match="JSON"):
        ServerSentEvent.json(float("nan"))


# --- A response


async def serve(
    make: Callable[[Request], Response],
    *,
    habits: Habits = ALL_HABITS[0],
    act: Callable[[Peer], object] | None = None,
    after: float = 2.5,
    **options: Any,
) -> Peer:
    """Serve one response, and *act* on it after so many seconds."""
    peer = Peer(habits=habits)

    async def endpoint(request: Request) -> Response:
        return make(request)

    app = Starlette(routes=[Route("/", endpoint)])
    app.add_middleware(RequestCancelationMiddleware, **options)
    if act is None:
        await peer.run(app)
        return peer
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, app)
        await anyio.sleep(after)
        act(peer)
    return peer


async def ticks(count: int = 1_000_000, every: float = 1) -> AsyncIterator[ServerSentEvent]:
    for number in range(count):
        yield ServerSentEvent(str(number), id=str(number))
        await anyio.sleep(every)


def respond(events: Any, **options: Any) -> Callable[[Request], Response]:
    def make(request: Request) -> Response:
        return cancelable_sse_response(events, Cancelable.with_token(get_request_token(request)), **options)

    return make


@every_server
async def test_events_are_sent_as_they_come(habits: Habits) -> None:
    """
    With the headers that make everyone on the way let them pass.
    """
    peer = await serve(respond(ticks(3)), habits=habits)

    assert [event.data for event in parse(peer.body).events] == ["0", "1", "2"]
    assert peer.sent_at[1:4] == [0, 1, 2]
    assert peer.complete
    assert peer.headers["content-type"].startswith("text/event-stream")
    assert peer.headers["cache-control"] == "no-store"
    assert peer.headers["x-accel-buffering"] == "no"


async def test_a_text_is_the_data_of_an_event() -> None:
    """
    For those who need nothing else.
    """

    async def generate() -> AsyncIterator[str]:
        yield "a\nb"

    peer = await serve(respond(generate()))

    assert peer.body == b"data: a\ndata: b\n\n"


async def test_anything_else_is_an_error() -> None:
    """
    Nothing is guessed.
    """

    async def generate() -> AsyncIterator[Any]:
        yield {"data": "x"}

    with pytest.raises(TypeError, match="ServerSentEvent or a str"):
        await serve(respond(generate()))


@every_server
async def test_heartbeats_fill_the_silence(habits: Habits) -> None:
    """
    The generator's step is not disturbed, and clients see nothing of them.
    """
    steps: list[float] = []

    async def generate() -> AsyncIterator[str]:
        yield "first"
        await anyio.sleep(35)
        steps.append(anyio.current_time())
        yield "second"
        await anyio.sleep(18)

    peer = await serve(respond(generate(), heartbeat=10), habits=habits)

    assert peer.sent_at[:-1] == [0, 0, 10, 20, 30, 35, 45]
    assert [event.data for event in parse(peer.body).events] == ["first", "second"]
    assert steps == [35]
    assert peer.complete


async def test_there_are_no_heartbeats_while_events_come_or_none_are_wanted() -> None:
    """
    They are for the silence.
    """
    busy = await serve(respond(ticks(30), heartbeat=10))
    quiet = await serve(respond(ticks(3, every=100), heartbeat=None))

    assert parse(busy.body).comments == []
    assert parse(quiet.body).comments == []


async def test_heartbeats_do_not_pile_up_before_a_client_that_stalls() -> None:
    """
    One that has not got through is enough.
    """

    peers: list[Peer] = []

    async def generate() -> AsyncIterator[str]:
        await anyio.sleep(505)
        peers[0].release()
        await anyio.sleep(490)
        yield "late"

    def stall(peer: Peer) -> None:
        peer.stall()
        peers.append(peer)

    peer = await serve(respond(generate(), heartbeat=10, send_timeout=None), act=stall)

    assert len(parse(peer.body).comments) in {49, 50}  # from 507.5 on, every 10
    assert peer.complete


@every_server
async def test_a_client_that_stalls_for_ever_is_let_go(habits: Habits) -> None:
    """
    Its generator is closed when the send timeout is over.
    """
    ended_at: list[float] = []

    async def generate() -> AsyncIterator[str]:
        try:
            while True:
                yield "x"
                await anyio.sleep(1)
        finally:
            ended_at.append(anyio.current_time())

    operation = Cancelable()
    peer = await serve(
        lambda _: cancelable_sse_response(generate(), operation, send_timeout=7),
        habits=habits,
        act=lambda peer: peer.stall(),
    )

    assert ended_at == [10]
    assert operation.cancelation is not None
    assert operation.cancelation.reason is CancelationReason.TIMEOUT
    assert operation.cancelation.text == "the client took nothing for 7 seconds"
    assert not peer.complete


async def test_a_client_that_stalls_during_a_heartbeat_is_let_go() -> None:
    """
    The generator is quiet, and has nothing to do with it.
    """
    ended_at: list[float] = []

    async def generate() -> AsyncIterator[str]:
        try:
            yield "x"
            await anyio.sleep(1000)
        finally:
            ended_at.append(anyio.current_time())

    await serve(respond(generate(), heartbeat=5, send_timeout=7), act=lambda peer: peer.stall())

    assert ended_at == [12]


# --- Farewell


@pytest.mark.parametrize("ending", ["truncate", "complete"])
@every_server
async def test_a_stream_that_is_cancelled_says_why(habits: Habits, ending: Any) -> None:
    """
    In a last event; whether that is the end of the response, or it is cut, is a choice.
    """
    peer = await serve(
        respond(ticks(), ending=ending),
        habits=habits,
        act=lambda peer: peer.scope["cancelation_token"].cancel(message="by an operator"),
    )

    *before, last = parse(peer.body).events
    assert [event.data for event in before] == ["0", "1", "2"]
    assert last.type == "cancelled"
    assert last.json["reason"] == "manual"
    assert last.json["detail"] == "by an operator"
    assert last.last_event_id == "2"
    assert peer.complete is (ending == "complete")
    assert peer.sent_at[-1] == 2.5


@every_server
async def test_the_deadline_of_the_middleware_is_told(habits: Habits) -> None:
    """
    The middleware drops what a stopped application sends, and lets this one end itself.
    """
    peer = await serve(respond(ticks()), habits=habits, default_timeout=2.5)

    last = parse(peer.body).events[-1]
    assert (last.type, last.json["reason"]) == ("cancelled", "timeout")
    assert not peer.complete


async def test_the_deadline_of_the_operation_is_told() -> None:
    """
    Without the request being cancelled.
    """
    operation = Cancelable.with_timeout(2.5)
    peer = await serve(lambda _: cancelable_sse_response(ticks(), operation))

    assert parse(peer.body).events[-1].json["status"] == 504


async def test_a_shutdown_spreads_the_clients_that_come_back() -> None:
    """
    Each is told to wait for another time; other causes tell nothing.
    """
    retries = set()
    for _ in range(20):
        peer = await serve(
            respond(ticks(), retry_spread=3),
            act=lambda peer: peer.scope["cancelation_token"].cancel(CancelationReason.SHUTDOWN),
        )
        retries.add(parse(peer.body).retry)
    manual = await serve(respond(ticks()), act=lambda peer: peer.scope["cancelation_token"].cancel())

    assert len(retries) > 5
    assert all(retry is not None and 1000 <= retry <= 4000 for retry in retries)
    assert parse(manual.body).retry is None


@every_server
async def test_a_client_that_has_left_is_told_nothing(habits: Habits) -> None:
    """
    There is nobody to tell.
    """
    peer = await serve(respond(ticks()), habits=habits, act=lambda peer: peer.disconnect())

    assert [event.data for event in parse(peer.body).events] == ["0", "1", "2"]
    assert not peer.complete


# --- Last-Event-ID


@pytest.mark.parametrize(
    ("header", "value"),
    [(None, None), ("", None), ("7", "7"), ("é".encode().decode("latin-1"), "é"), ("\xff", "�")],
)
def test_the_last_event_id_is_handed_over(header: str | None, value: str | None) -> None:
    """
    Browsers send it in UTF-8, which headers are not.
    """
    headers = [] if header is None else [(b"last-event-id", header.encode("latin-1"))]

    assert get_last_event_id(Request({"type": "http", "headers": headers})) == value


async def test_the_last_event_id_is_a_parameter_in_fastapi() -> None:
    """
    Not one of the query string.
    """
    app = FastAPI()

    @app.get("/")
    async def endpoint(last_event_id: LastEventId) -> str | None:
        return last_event_id

    peer = Peer(headers=[("Last-Event-ID", "41")])
    await peer.run(app)

    assert peer.json == "41"
    assert "parameters" not in app.openapi()["paths"]["/"]["get"]


# --- Arguments


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"heartbeat": 0}, ValueError),
        ({"heartbeat": -1}, ValueError),
        ({"send_timeout": "1"}, TypeError),
        ({"retry_spread": -1}, ValueError),
        ({"ending": "never"}, ValueError),
        ({"shield": "all"}, ValueError),
        ({"drain": 3}, TypeError),
        ({"on_close": 3}, TypeError),
    ],
    ids=str,
)
def test_wrong_options_are_refused_at_once(options: dict[str, Any], error: type[Exception]) -> None:
    """
    Not when the response is sent.
    """
    with pytest.raises(error):
        cancelable_sse_response(ticks(), Cancelable(), **options)


@pytest.mark.parametrize("events", [None, "text", ticks], ids=repr)
def test_what_has_no_events_is_refused(events: Any) -> None:
    """
    A generator function that somebody forgot to call, for one.
    """
    with pytest.raises(TypeError, match="events must be an iterable"):
        cancelable_sse_response(events, Cancelable())
