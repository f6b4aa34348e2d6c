"""A request goes on without its client, for as long as its policy says: nothing tells its handler to stop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.websockets import WebSocket

from hother.cancelable import Cancelable, DisconnectCancelation
from hother.cancelable.asgi import ASGIApp, Grace, RequestCancelationMiddleware, commit
from hother.cancelable.asgi._types import Message, Receive, Scope, Send
from hother.cancelable.integrations.starlette import (
    CancelableWebSocket,
    cancelable_streaming_response,
    get_request_token,
)
from tests.asgi_peer import HYPERCORN, UVICORN, Habits, Peer

HOUR = 3600.0
START: Message = {"type": "http.response.start", "status": 200, "headers": []}
LAST: Message = {"type": "http.response.body", "body": b"last"}
ACCEPT: Message = {"type": "websocket.accept"}

listening_servers = pytest.mark.parametrize("habits", [UVICORN, HYPERCORN], ids=str)
"""Of ASGI before 2.4: Starlette's streams listen for the disconnect by themselves there."""


async def serve(app: ASGIApp, peer: Peer, *, leaves_after: float = 0.5) -> None:
    """Serve a request whose client leaves."""
    with anyio.fail_after(HOUR):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(peer.run, app)
            await anyio.sleep(leaves_after)
            peer.disconnect()


@listening_servers
@pytest.mark.parametrize("twice", [False, True], ids=["once", "installed twice"])
@pytest.mark.parametrize(
    ("policy", "commits", "ends_at"),
    [
        ("cancel", False, 0.5),
        ("finish", False, 10),
        ("ignore", False, 10),
        (Grace(5), False, 0.5),
        (Grace(5, delay=2), False, 2.5),
        ("cancel", True, 2.7),
        ("finish", True, 10),
    ],
    ids=str,
)
async def test_a_stream_that_listens_for_the_disconnect_goes_on(
    habits: Habits, twice: bool, policy: Any, commits: bool, ends_at: float
) -> None:
    """
    Until its token is cancelled by a grace, or the commitment is over.
    """
    ended_at = -1.0

    async def ticks() -> AsyncIterator[str]:
        nonlocal ended_at
        try:
            for _ in range(10):
                await anyio.sleep(1)
                yield "tick"
        finally:
            ended_at = anyio.current_time() - start

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if commits:
            commit(timeout=2.7)
        await StreamingResponse(ticks())(scope, receive, send)

    start = anyio.current_time()
    wrapped: ASGIApp = RequestCancelationMiddleware(app, on_disconnect=policy)
    if twice:
        wrapped = RequestCancelationMiddleware(wrapped)
    await serve(wrapped, Peer(habits=habits))

    assert ended_at == pytest.approx(ends_at)


@listening_servers
async def test_who_asks_gets_the_truth(habits: Habits) -> None:
    """
    `Request.is_disconnected` does not wait, and does not make a handler stop.
    """
    answers: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await request.body()
        for _ in range(2):
            answers.append(await request.is_disconnected())
            await anyio.sleep(1)

    await serve(RequestCancelationMiddleware(app, on_disconnect="finish"), Peer(habits=habits))

    assert answers == [False, True]


@listening_servers
async def test_a_handler_whose_body_will_never_be_complete_is_told(habits: Habits) -> None:
    """
    It would wait for ever.
    """
    told = False

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal told
        try:
            await Request(scope, receive).body()
        except ClientDisconnect:
            told = True

    await serve(
        RequestCancelationMiddleware(app, on_disconnect="finish"), Peer(b"part", more=True, habits=habits)
    )

    assert told


@listening_servers
async def test_after_the_response_there_is_a_disconnect_as_ever(habits: Habits) -> None:
    """
    For the part of a handler that waits for it.
    """
    told_at = -1.0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def listen() -> None:
            nonlocal told_at
            while (await receive())["type"] != "http.disconnect":
                pass
            told_at = anyio.current_time() - start

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            await anyio.sleep(3)
            await send(START)
            await send(LAST)

    start = anyio.current_time()
    await serve(RequestCancelationMiddleware(app, on_disconnect="finish"), Peer(habits=habits))

    assert told_at == pytest.approx(3)


# --- A server that says it when something is sent, and not before


async def serve_raising(app: ASGIApp, *, from_message: int, kind: str = "http") -> list[str]:
    """Serve a request on a server whose ``send()`` raises, and whose ``receive()`` is silent."""
    first: Message = {"type": "http.request"} if kind == "http" else {"type": "websocket.connect"}
    inbox, sent = [first], list[str]()

    async def receive() -> Message:
        if inbox:
            return inbox.pop()
        await anyio.sleep_forever()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message["type"])
        if len(sent) >= from_message:
            raise OSError("the client has left")

    scope = {"type": kind, "path": "/", "headers": [], "asgi": {"spec_version": "2.4"}}
    with anyio.fail_after(HOUR):
        await app(scope, receive, send)
    return sent


@pytest.mark.parametrize(
    ("policy", "commits", "count"),
    [("cancel", False, 2), ("finish", False, 10), ("ignore", False, 2), ("cancel", True, 10)],
)
async def test_a_stream_of_ours_goes_on(policy: Any, commits: bool, count: int) -> None:
    """
    Its operation is not cancelled, unless its token is; what is sent is dropped.
    """
    steps = 0

    async def numbers() -> AsyncIterator[str]:
        nonlocal steps
        for _ in range(10):
            steps += 1
            yield "number"
            await anyio.sleep(0.1)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if commits:
            commit()
        operation = Cancelable(tokens=[get_request_token(Request(scope))], raise_on_cancel=False)
        response = await cancelable_streaming_response(numbers(), operation)
        await response(scope, receive, send)

    sent = await serve_raising(RequestCancelationMiddleware(app, on_disconnect=policy), from_message=3)

    assert steps == count
    assert len(sent) == 3


@pytest.mark.parametrize(("policy", "raises"), [("cancel", True), ("finish", False), (Grace(5), False)])
async def test_even_at_the_last_message(policy: Any, raises: bool) -> None:
    """
    A background task follows where the work goes on.
    """
    errors = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal errors
        await send(START)
        try:
            await send(LAST)
        except OSError:
            errors += 1

    await serve_raising(RequestCancelationMiddleware(app, on_disconnect=policy), from_message=2)

    assert errors == int(raises)


# --- WebSockets


@pytest.mark.parametrize("raises", [False, True], ids=["told", "send() raises"])
async def test_a_websockets_operation_goes_on_after_a_commitment(raises: bool) -> None:
    """
    Until that is over: what is sent meanwhile is dropped.
    """
    steps = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal steps
        websocket = WebSocket(scope, receive, send)
        with pytest.raises(DisconnectCancelation):
            async with CancelableWebSocket(websocket, Cancelable()) as socket:
                await socket.accept()
                commit(timeout=4.8)
                while True:
                    await socket.send_text("tick")
                    steps += 1
                    await anyio.sleep(1)

    wrapped = RequestCancelationMiddleware(app)
    if raises:
        await serve_raising(wrapped, from_message=3, kind="websocket")
    else:
        await serve(wrapped, Peer(kind="websocket", habits=HYPERCORN))

    assert steps == 5


# --- Shutdown


async def test_a_mounted_application_refuses_what_comes_during_the_shutdown() -> None:
    """
    Although no lifespan reaches it: the middleware around it has heard.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("not refused")

    inner = RequestCancelationMiddleware(app, reject_during_shutdown=True)
    outer = RequestCancelationMiddleware(inner)
    outer.begin_shutdown()

    peer = Peer()
    await peer.run(outer)

    assert peer.status == 503
    assert peer.headers["retry-after"] == "1"
