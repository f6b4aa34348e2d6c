"""The access log: one line for each request that was cancelled."""

from __future__ import annotations

import logging
from collections.abc import Generator
from math import inf
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from anyio import create_task_group

from hother.cancelable.asgi import TOKEN_KEY, ASGIApp, Grace, RequestCancelationMiddleware, commit
from hother.cancelable.asgi._types import Message, Receive, Scope, Send
from tests.asgi_peer import Peer

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
PART: Message = {"type": "http.response.body", "body": b"part", "more_body": True}
LAST: Message = {"type": "http.response.body", "body": b"last"}

NAME = "hother.cancelable.access"


@pytest.fixture
def lines() -> Generator[list[Any]]:
    """
    What is logged.
    """
    records: list[Any] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    logger, handler = logging.getLogger(NAME), Handler()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield records
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


async def serve(app: ASGIApp, *, leaves_after: float = inf, **options: Any) -> Peer:
    peer = Peer(**options)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, app)
        with anyio.move_on_after(leaves_after):
            await peer.until(lambda: peer.returned)
        if not peer.returned:
            peer.disconnect()
    return peer


async def slow(scope: Scope, receive: Receive, send: Send) -> None:
    """Work for ten seconds, and clean up for half of one."""
    try:
        await anyio.sleep(10)
        await send(START)
        await send(LAST)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.5)


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    """Stream for ever."""
    await send(START)
    while True:
        await send(PART)
        await anyio.sleep(0.3)


async def test_a_client_that_left_has_its_line(lines: list[Any]) -> None:
    """
    With all that is known, as text and as fields.
    """
    await serve(RequestCancelationMiddleware(slow), leaves_after=1, path="/a b\n", method="PUT")

    [line] = lines
    assert line.name == NAME
    assert line.levelno == logging.INFO
    assert line.getMessage() == (
        '192.0.2.1:50000 "PUT /a%20b%0A" 499 unsent: the client disconnected, handler ended after 500.0 ms'
    )
    assert (line.client, line.method, line.path, line.route) == ("192.0.2.1:50000", "PUT", "/a%20b%0A", None)
    assert (line.reason, line.by, line.status, line.result) == ("disconnect", None, 499, "unsent")
    assert line.latency == 0.5
    assert line.cancelation.reason == "disconnect"


async def test_a_timeout_has_the_status_that_was_sent(lines: list[Any]) -> None:
    """
    The time is that of the handler, not of its answer.
    """
    await serve(RequestCancelationMiddleware(slow, 2))

    assert [(line.reason, line.status, line.result, line.latency) for line in lines] == [
        ("timeout", 504, "answered", 0.5)
    ]


@pytest.mark.parametrize(("leaves_after", "reason"), [(1.1, "disconnect"), (inf, "timeout")])
async def test_a_stream_is_cut(leaves_after: float, reason: str, lines: list[Any]) -> None:
    """
    Its status has been sent long ago.
    """
    await serve(RequestCancelationMiddleware(stream, 2), leaves_after=leaves_after)

    assert [(line.reason, line.status, line.result) for line in lines] == [(reason, 200, "cut")]


async def test_an_operator_is_named(lines: list[Any]) -> None:
    """
    In the log, and nowhere else.
    """
    peer = Peer()
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(slow))
        await anyio.sleep(1)
        peer.scope[TOKEN_KEY].cancel(by="alice")

    assert [(line.reason, line.by, line.status) for line in lines] == [("manual", "alice", 503)]


@pytest.mark.parametrize("policy", ["ignore", "finish", Grace(20)], ids=str)
async def test_a_handler_that_went_on_without_its_client_is_told_of(policy: Any, lines: list[Any]) -> None:
    """
    Its answer was not sent; and one sees how long it went on.
    """
    await serve(RequestCancelationMiddleware(slow, on_disconnect=policy), leaves_after=1)

    assert [(line.status, line.result, line.latency) for line in lines] == [(499, "unsent", 9.5)]


async def test_a_handler_that_cancels_its_own_request_is_told_of(lines: list[Any]) -> None:
    """
    Even if it has nothing more to wait for.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope[TOKEN_KEY].cancel(message="nothing to do")

    await serve(RequestCancelationMiddleware(app))

    assert [(line.reason, line.status, line.result) for line in lines] == [("manual", 503, "answered")]


async def test_other_requests_have_no_line(lines: list[Any]) -> None:
    """
    Nor those that a commitment has brought to their end.
    """

    async def committed(scope: Scope, receive: Receive, send: Send) -> None:
        commit()
        await slow(scope, receive, send)

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError

    await serve(RequestCancelationMiddleware(slow))
    await serve(RequestCancelationMiddleware(committed, 2))
    with pytest.raises(KeyError):
        await Peer().run(RequestCancelationMiddleware(failing))

    assert lines == []


async def test_one_request_has_one_line(lines: list[Any]) -> None:
    """
    However many middlewares there are.
    """
    twice = RequestCancelationMiddleware(RequestCancelationMiddleware(slow, 2))
    await serve(twice, leaves_after=1)
    await serve(twice)
    await serve(RequestCancelationMiddleware(RequestCancelationMiddleware(slow), 2))

    assert [(line.reason, line.status, line.result) for line in lines] == [
        ("disconnect", 499, "unsent"),
        ("timeout", 504, "answered"),
        ("timeout", 504, "answered"),
    ]


async def test_the_cause_is_as_old_as_the_first_news_of_it(lines: list[Any]) -> None:
    """
    A commitment delays what comes of it; how many middlewares there are makes no difference.
    """

    async def committed(scope: Scope, receive: Receive, send: Send) -> None:
        commit(timeout=4)
        await slow(scope, receive, send)

    await serve(RequestCancelationMiddleware(committed, 2))
    await serve(RequestCancelationMiddleware(RequestCancelationMiddleware(committed), 2))

    assert [line.latency for line in lines] == [2.5, 2.5]


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("policy", ["ignore", "finish", Grace(20)], ids=str)
async def test_a_stream_that_went_on_without_its_client_was_cut(
    policy: Any, times: int, lines: list[Any]
) -> None:
    """
    Its client has seen its status, and a part of it.
    """

    async def short(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(PART)
        await anyio.sleep(3)
        await send(LAST)

    app = RequestCancelationMiddleware(short, on_disconnect=policy)
    await serve(app if times == 1 else RequestCancelationMiddleware(app), leaves_after=1)

    assert [(line.status, line.result, line.latency) for line in lines] == [(200, "cut", 2)]


async def test_it_is_off_by_default() -> None:
    """
    No handler of ours, no level of ours.
    """
    logger = logging.getLogger(NAME)

    assert logger.level == logging.NOTSET
    assert [type(handler) for handler in logger.handlers] == [logging.NullHandler]


@pytest.mark.parametrize("client", [None, ("192.0.2.7", 1)])
async def test_a_client_may_be_unknown(client: Any, lines: list[Any]) -> None:
    """
    Behind a socket file, for one.
    """
    peer = Peer()
    peer.scope["client"] = client
    await peer.run(RequestCancelationMiddleware(slow, 1))

    assert lines[0].client == ("-" if client is None else "192.0.2.7:1")


async def test_a_route_that_an_included_router_knows_no_path_of_is_named_all_the_same(
    lines: list[Any],
) -> None:
    """
    FastAPI has an empty one for what is mounted there; its own router has found the route.
    """
    peer = Peer()
    context = SimpleNamespace(path_format="")
    peer.scope |= {
        "route": SimpleNamespace(path="/jobs/{id}"),
        "fastapi": {"effective_route_context": context},
    }
    await peer.run(RequestCancelationMiddleware(slow, 1))

    assert lines[0].route == "/jobs/{id}"


async def test_a_client_without_a_host_is_unknown(lines: list[Any]) -> None:
    """
    Granian has one for each client behind a socket file.
    """
    peer = Peer()
    peer.scope["client"] = ("", 0)
    await peer.run(RequestCancelationMiddleware(slow, 1))

    assert lines[0].client == "-"


@pytest.mark.parametrize(
    ("places", "route"),
    [
        ({}, None),
        ({"route": SimpleNamespace(path="/jobs/{id}")}, "/jobs/{id}"),
        ({"route": SimpleNamespace()}, None),
        ({"route": SimpleNamespace(path="/{id}"), "fastapi": {}}, "/{id}"),
        (
            {
                "route": SimpleNamespace(path="/{id}"),
                "fastapi": {"effective_route_context": SimpleNamespace(path_format="/jobs/{id}")},
            },
            "/jobs/{id}",
        ),
    ],
)
async def test_the_route_is_named_if_there_is_one(places: Any, route: str | None, lines: list[Any]) -> None:
    """
    Its template has few values, which metrics need.
    """
    peer = Peer()
    peer.scope.update(places)
    await peer.run(RequestCancelationMiddleware(slow, 1))

    assert lines[0].route == route


# --- WebSockets


async def talk(scope: Scope, receive: Receive, send: Send) -> None:
    """Wait for messages until there are no more."""
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def tick(scope: Scope, receive: Receive, send: Send) -> None:
    """Only send."""
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        await send({"type": "websocket.send", "text": "tick"})
        await anyio.sleep(1)


async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
    """Go on as if nothing had happened once the client has left."""
    await receive()
    await send({"type": "websocket.accept"})
    await receive()
    await anyio.sleep(3600)


async def test_a_websocket_that_its_client_closes_has_no_line(lines: list[Any]) -> None:
    """
    It is how they all end.
    """
    await serve(RequestCancelationMiddleware(talk), leaves_after=1, kind="websocket")

    assert lines == []


@pytest.mark.parametrize(
    ("app", "timeout", "leaves_after", "line"),
    [
        (tick, None, 1.5, ("disconnect", 1001, "cut")),
        (talk, 2, inf, ("timeout", 1011, "answered")),
        (slow, None, 1, ("disconnect", 1001, "unsent")),
        (deaf, None, 1, ("disconnect", 1001, "cut")),
    ],
)
async def test_a_websocket_handler_that_was_stopped_has_a_line(
    app: ASGIApp, timeout: Any, leaves_after: float, line: Any, lines: list[Any]
) -> None:
    """
    The status is the close code that was sent, or that would have been.
    """
    middleware = RequestCancelationMiddleware(app, websocket_timeout=timeout)
    await serve(middleware, leaves_after=leaves_after, kind="websocket")

    assert [(each.method, each.reason, each.status, each.result) for each in lines] == [("WEBSOCKET", *line)]
