"""A WebSocket is closed while nobody receives: Granian closes one only then."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest
from starlette.websockets import WebSocket

from hother.cancelable import Cancelable
from hother.cancelable.asgi import TOKEN_KEY, ASGIApp, RequestCancelationMiddleware
from hother.cancelable.asgi._types import Message, Receive, Scope, Send
from hother.cancelable.integrations.starlette import CancelableWebSocket
from tests.asgi_peer import HYPERCORN, UVICORN, Habits, Peer

HOUR = 3600.0
ACCEPT: Message = {"type": "websocket.accept"}


class Granian(Peer):
    """A server that does not close a WebSocket while somebody receives."""

    def __init__(self, habits: Habits = HYPERCORN) -> None:
        super().__init__(kind="websocket", habits=habits)

    async def send(self, message: Message) -> None:
        while message["type"] == "websocket.close" and self.receiving:  # noqa: ASYNC110 (nobody tells)
            await anyio.sleep(1)
        await super().send(message)


def behind(app: ASGIApp, **options: Any) -> ASGIApp:
    """*app* behind the middleware."""
    return RequestCancelationMiddleware(app, **options)


def around(endpoint: Callable[[WebSocket], Awaitable[None]]) -> ASGIApp:
    """An application for each WebSocket."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await endpoint(WebSocket(scope, receive, send))

    return app


async def serve(app: ASGIApp) -> Granian:
    """Serve one WebSocket whose client says nothing. It must not take a minute."""
    peer = Granian()
    with anyio.fail_after(60):
        await peer.run(app)
    return peer


async def test_a_handler_that_is_stopped() -> None:
    """
    No message is wanted any more.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await anyio.sleep(0.1)  # the reader waits for what the client says
        scope[TOKEN_KEY].cancel()
        await anyio.sleep(HOUR)

    assert (await serve(behind(app))).closed == (1013, "cancelled on request")


@pytest.mark.parametrize("twice", [False, True], ids=["once", "installed twice"])
async def test_a_handler_that_closes(twice: bool) -> None:
    """
    While the middleware reads ahead.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await anyio.sleep(0.1)
        await send({"type": "websocket.close", "code": 4000, "reason": "done"})
        assert await receive() == {"type": "websocket.disconnect", "code": 4000, "reason": "done"}

    assert (await serve(behind(behind(app) if twice else app))).closed == (4000, "done")


async def test_a_handler_that_closes_while_another_of_its_tasks_receives() -> None:
    """
    Which gets what came before, and then hears of the end at once, whatever the server would say.
    """
    got: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def listen() -> None:
            while (message := await receive())["type"] != "websocket.disconnect":
                got.append(message)
            got.append(message)

        await receive()
        await send(ACCEPT)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            peer.feed("before")
            await anyio.sleep(0.1)
            await send({"type": "websocket.close"})

    peer = Granian()
    with anyio.fail_after(60):
        await peer.run(behind(app))

    assert peer.closed == (1000, "")
    assert [message.get("text") for message in got] == ["before", None]
    assert got[-1] == {"type": "websocket.disconnect", "code": 1000, "reason": ""}


async def test_two_tasks_that_close_at_once() -> None:
    """
    Both go on.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def close(code: int) -> None:
            await send({"type": "websocket.close", "code": code})

        await receive()
        await send(ACCEPT)
        await anyio.sleep(0.1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(close, 4000)
            tasks.start_soon(close, 4001)

    peer = Granian()
    peer.strict = False  # one close is too many, as without us
    with anyio.fail_after(60):
        await peer.run(behind(app, answer_timeout=None))

    assert peer.closed is not None


@pytest.mark.parametrize("middleware", [True, False], ids=["with middleware", "without"])
@pytest.mark.parametrize("how", ["close", "plain close", "leave", "cancel"])
async def test_the_wrapper(how: str, middleware: bool) -> None:
    """
    However it is closed; without the middleware it reads ahead by itself.
    """

    async def endpoint(websocket: WebSocket) -> None:
        operation = Cancelable(raise_on_cancel=False)
        async with CancelableWebSocket(websocket, operation) as socket:
            await socket.accept()
            await anyio.sleep(0.1)
            if how == "close":
                await socket.close(4000)
            elif how == "plain close":
                await websocket.close(4000)
            elif how == "cancel":
                operation.cancel()
                await anyio.sleep(HOUR)
        assert socket.close_code == code

    code = {"leave": 1000, "cancel": 1013}.get(how, 4000)
    app = around(endpoint)

    peer = await serve(behind(app) if middleware else app)

    assert peer.closed is not None
    assert peer.closed[0] == code


async def test_a_client_that_leaves_at_that_moment() -> None:
    """
    It is not sent a close that it cannot get any more.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await anyio.sleep(0.1)
        await send({"type": "websocket.close", "code": 4000})
        assert (await receive())["code"] == 1001

    class Leaving(Peer):
        async def receive(self) -> Message:
            message: Message | None = None
            with suppress(anyio.get_cancelled_exc_class()):
                message = await super().receive()
            while message is None:
                self.disconnect(1001)
                with anyio.CancelScope(shield=True):
                    message = await super().receive()
            return message

    peer = Leaving(kind="websocket", habits=HYPERCORN)

    await peer.run(behind(app))

    assert peer.closed is None


async def test_a_reader_that_cannot_be_interrupted_is_not_waited_for_for_ever() -> None:
    """
    It may be a middleware's in between, that does not listen.
    """

    async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_and_linger() -> Message:
            try:
                return await receive()
            finally:
                with anyio.CancelScope(shield=True):
                    for event in lingering:
                        await event.wait()

        await behind(app, answer_timeout=3)(scope, receive_and_linger, send)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await anyio.sleep(0.1)
        lingering.append(anyio.Event())
        start = anyio.current_time()
        await send({"type": "websocket.close", "code": 4000})
        took.append(anyio.current_time() - start)
        lingering.pop().set()

    lingering: list[anyio.Event] = []
    took: list[float] = []
    peer = Peer(kind="websocket", habits=HYPERCORN)

    await peer.run(deaf)

    assert took == [pytest.approx(3)]
    assert peer.closed == (4000, "")


async def test_a_server_that_does_not_take_the_close_is_not_waited_for_for_ever() -> None:
    """
    Nobody reads any more, so nobody would hear of the client's leaving.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await anyio.sleep(0.1)
        peer.stall()
        start = anyio.current_time()
        await send({"type": "websocket.close", "code": 4000})
        took.append(anyio.current_time() - start)

    took: list[float] = []
    peer = Peer(kind="websocket", habits=HYPERCORN)

    await peer.run(behind(app, answer_timeout=3))

    assert took == [pytest.approx(3)]


async def test_a_handler_that_is_interrupted_meanwhile_has_closed_all_the_same() -> None:
    """
    Or it would go on with a connection that nobody reads from.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await anyio.sleep(0.1)
        with anyio.CancelScope() as scope_of_its_own:
            scope_of_its_own.cancel()
            await send({"type": "websocket.close", "code": 4000})
        assert (await receive())["code"] == 4000

    peer = Granian(UVICORN)  # whose send() is no checkpoint
    with anyio.fail_after(60):
        await peer.run(behind(app))

    assert peer.closed == (4000, "")


@pytest.mark.parametrize(("code", "sent"), [(1013, 4013), (1001, 4001), (1000, 1000), (4000, 4000)])
async def test_a_server_that_refuses_a_code_is_given_a_private_one(code: int, sent: int) -> None:
    """
    As daphne does: the client would wait for ever.
    """

    class Daphne(Peer):
        async def send(self, message: Message) -> None:
            if 1000 < message.get("code", 0) < 3000:
                raise ValueError("invalid close code")
            await super().send(message)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        if code == 1013:
            scope[TOKEN_KEY].cancel()
            await anyio.sleep(HOUR)
        await send({"type": "websocket.close", "code": code})

    peer = Daphne(kind="websocket", habits=HYPERCORN)
    await peer.run(behind(app))

    assert peer.closed is not None
    assert peer.closed[0] == sent


@pytest.mark.parametrize("error", [OSError("gone"), ValueError("whatever")], ids=repr)
async def test_what_the_server_raises_otherwise_is_for_the_handler(error: Exception) -> None:
    """
    Once.
    """
    closes = 0

    class Broken(Peer):
        async def send(self, message: Message) -> None:
            nonlocal closes
            if message["type"] == "websocket.close":
                closes += 1
                raise error
            await super().send(message)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        await send({"type": "websocket.close", "code": 4000})

    with pytest.raises(type(error)):
        await Broken(kind="websocket", habits=HYPERCORN).run(behind(app))

    assert closes == 1
