"""Servers that need no task while they wait for the client: no request has one only to hear it leave."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from threading import Thread
from typing import Any
from weakref import ref

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from hother.cancelable import Cancelation, CancelationReason
from hother.cancelable.asgi import TOKEN_KEY, Grace, RequestCancelationMiddleware
from hother.cancelable.asgi._exchange import EXCHANGE_KEY
from hother.cancelable.asgi._types import ASGIApp, Message, Receive, Scope, Send
from tests.asgi_peer import GUNICORN, Peer

# None of the servers that run on Trio is of this kind.
pytestmark = pytest.mark.only_on("asyncio")

HOUR = 3600.0
START: Message = {"type": "http.response.start", "status": 200, "headers": []}
LAST: Message = {"type": "http.response.body", "body": b"last"}


async def hang(scope: Scope, receive: Receive, send: Send) -> None:
    await anyio.sleep(HOUR)


class Waiting:
    """A server that has given a body, and waits for what the test does with a future."""

    future: asyncio.Future[None] | None = None

    async def receive(self) -> Message:
        if self.future is None:
            self.future = asyncio.get_running_loop().create_future()
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.future
        raise AssertionError("not reached")

    receive.__module__ = "uvicorn.protocols.http.h11_impl"


def in_thread(function: Callable[..., object], *args: Any) -> list[BaseException]:
    """Call *function* in a thread without an event loop. Returns what it raised."""
    errors: list[BaseException] = []

    def call() -> None:
        try:
            function(*args)
        except BaseException as error:
            errors.append(error)

    thread = Thread(target=call)
    thread.start()
    thread.join()
    return errors


async def started(app: ASGIApp, peer: Peer) -> asyncio.Task[None]:
    """Start *app*, and wait until it is monitored."""
    task = asyncio.create_task(peer.run(app))
    await wait_all_tasks_blocked()
    await anyio.sleep(1)
    return task


@pytest.mark.parametrize("body", [(), (b"one", b"two")], ids=["no body", "body"])
async def test_an_idle_request_has_no_task_but_its_own(body: tuple[bytes, ...]) -> None:
    """
    The server waits for the client's leaving all the same.
    """
    before = asyncio.all_tasks()
    peer = Peer(*body)
    task = await started(RequestCancelationMiddleware(hang), peer)

    assert asyncio.all_tasks() - before == {task}
    assert peer.receiving == 1

    peer.disconnect()
    await task
    assert peer.stopped_after == 0


async def test_a_body_that_is_still_coming_has_its_reader() -> None:
    """
    It would be a new task for each part of it.
    """
    before = asyncio.all_tasks()
    peer = Peer(b"one", more=True)
    task = await started(RequestCancelationMiddleware(hang), peer)
    (reader,) = asyncio.all_tasks() - before - {task}

    peer.feed(b"two", more=True)
    await anyio.sleep(1)
    assert asyncio.all_tasks() - before == {task, reader}

    peer.feed(b"three")
    await anyio.sleep(1)
    assert asyncio.all_tasks() - before == {task}

    peer.disconnect()
    await task
    assert peer.stopped_after == 0


@pytest.mark.parametrize("leaves_early", [False, True])
async def test_what_a_disconnect_calls_is_called_in_a_task(leaves_early: bool) -> None:
    """
    AnyIO knows nothing outside of one; also if the client has left before the request is monitored.
    """
    tasks: list[str | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope[TOKEN_KEY].add_callback(lambda _: tasks.append(anyio.get_current_task().name))
        await anyio.sleep(HOUR)

    peer = Peer()
    if leaves_early:
        peer.disconnect()
    task = await started(RequestCancelationMiddleware(app), peer)
    peer.disconnect()
    await task

    assert len(tasks) == 1


async def test_an_application_that_listens_itself_hears_the_client_leave() -> None:
    """
    After the server was called for it.
    """
    answers: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(2)
        for _ in range(3):
            answers.append(await receive())

    peer = Peer(b"body")
    task = await started(RequestCancelationMiddleware(app, on_disconnect=Grace(HOUR)), peer)
    await anyio.sleep(2)
    assert answers == [{"type": "http.request", "body": b"body", "more_body": False}]
    peer.disconnect()
    await task

    assert answers[1:] == [{"type": "http.disconnect"}] * 2


@pytest.mark.parametrize("at_once", [False, True])
async def test_an_error_of_the_server_ends_nothing(at_once: bool) -> None:
    """
    It is for whoever asks for messages.
    """

    class Broken(Waiting):
        async def receive(self) -> Message:
            if at_once:
                raise ConnectionResetError("no route")
            return await super().receive()

        receive.__module__ = "uvicorn.protocols.http.h11_impl"

    server = Broken()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(2)
        if server.future is not None:
            await receive()
            server.future.set_exception(ConnectionResetError("no route"))
            await anyio.sleep(1)
        for _ in range(2):
            with pytest.raises(ConnectionResetError):
                await receive()
        await send(START)
        await send(LAST)

    peer = Peer()
    await RequestCancelationMiddleware(app)(peer.scope, server.receive, peer.send)

    assert peer.status == 200


async def test_an_error_of_the_server_may_come_after_the_body() -> None:
    """
    It is for whoever asks for more.
    """
    parts: list[Any] = [b"one", b"two", ConnectionResetError("no route")]
    arrived = asyncio.Event()

    class Broken:
        async def receive(self) -> Message:
            await arrived.wait()
            part = parts.pop(0)
            if isinstance(part, Exception):
                raise part
            return {"type": "http.request", "body": part, "more_body": part != b"two"}

        receive.__module__ = "uvicorn.protocols.http.h11_impl"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(2)
        arrived.set()
        await anyio.sleep(1)
        assert parts == []
        assert [(await receive())["body"] for _ in range(2)] == [b"one", b"two"]
        with pytest.raises(ConnectionResetError):
            await receive()
        await send(START)
        await send(LAST)

    peer = Peer()
    await RequestCancelationMiddleware(app)(peer.scope, Broken().receive, peer.send)

    assert peer.status == 200


async def test_what_the_server_waits_for_may_be_cancelled() -> None:
    """
    Who asks hears of that, as they would from the server.
    """
    server = Waiting()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await anyio.sleep(2)
        assert server.future is not None
        server.future.cancel()
        await anyio.sleep(1)
        with pytest.raises(asyncio.CancelledError):
            await receive()
        await send(START)
        await send(LAST)

    peer = Peer()
    await RequestCancelationMiddleware(app)(peer.scope, server.receive, peer.send)

    assert peer.status == 200


async def test_a_client_that_leaves_as_the_request_ends_changes_nothing() -> None:
    """
    The loop has yet to tell us, and there is nobody any more.
    """
    causes: list[Cancelation | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(2)
        await send(START)
        await send(LAST)
        peer.disconnect()

    peer = Peer()
    before = asyncio.all_tasks()
    await peer.run(RequestCancelationMiddleware(app))
    causes.append(peer.scope[TOKEN_KEY].cancelation)
    await anyio.sleep(1)

    assert causes == [None]
    assert asyncio.all_tasks() == before
    assert peer.receiving == 0


async def test_a_crowd_that_leaves_at_once_is_stopped_at_once() -> None:
    """
    Each has its reason.
    """
    peers = [Peer() for _ in range(50)]
    tasks = [asyncio.create_task(peer.run(RequestCancelationMiddleware(hang))) for peer in peers]
    await anyio.sleep(2)
    for peer in peers:
        peer.disconnect()
    await asyncio.gather(*tasks)

    assert {peer.stopped_after for peer in peers} == {0}
    reasons = {peer.scope[TOKEN_KEY].cancelation.reason for peer in peers}
    assert reasons == {CancelationReason.DISCONNECT}


async def test_nobody_asks_a_server_again_that_has_said_that_the_client_left() -> None:
    """
    Though the application goes on, and waits for a message that will never come.
    """
    received: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        with anyio.move_on_after(2) as wait:
            await receive()
        assert wait.cancelled_caught
        received.append(peer.received)
        await send(START)
        await send(LAST)

    peer = Peer(b"body", habits=GUNICORN)  # who gives what the client has sent, though it has left
    peer.disconnect()
    await peer.run(RequestCancelationMiddleware(app, on_disconnect="ignore"))

    assert received == [2]


@pytest.mark.parametrize("leaves", [False, True])
async def test_who_closes_a_request_when_its_loop_is_gone_hears_of_nothing(leaves: bool) -> None:
    """
    The collector does so, with what a server has left.
    """
    peers: list[Peer] = []
    calls: list[Any] = []

    async def begin() -> None:
        peers.append(Peer())
        app = RequestCancelationMiddleware(hang, on_disconnect=Grace(HOUR))
        calls.append(app(peers[0].scope, peers[0].receive, peers[0].send))
        calls[0].send(None)
        while leaves and not peers[0].told:
            await asyncio.sleep(0)
            if peers[0].receiving and not peers[0].gone:
                peers[0].disconnect()

    assert in_thread(asyncio.run, begin()) == []
    assert in_thread(calls[0].close) == []

    assert peers[0].receiving == 0


@pytest.mark.parametrize("fails_first", [False, True])
async def test_a_request_whose_server_fails_leaves_nothing_to_the_collector(fails_first: bool) -> None:
    """
    The error is let go of with the request, even if nobody has asked for a message.
    """
    exchanges: list[ref[object]] = []

    class Broken:
        has_begun = fails_first

        async def receive(self) -> Message:
            if self.has_begun:
                raise ConnectionResetError("no route")
            self.has_begun = True
            return {"type": "http.request", "body": b"", "more_body": False}

        receive.__module__ = "uvicorn.protocols.http.h11_impl"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        exchanges.append(ref(scope[EXCHANGE_KEY]))
        await anyio.sleep(2)
        await send(START)
        await send(LAST)

    peer = Peer()
    gc.disable()
    try:
        await asyncio.create_task(RequestCancelationMiddleware(app)(peer.scope, Broken().receive, peer.send))
        await anyio.sleep(1)
        assert exchanges[0]() is None
    finally:
        gc.enable()


async def test_a_call_that_is_closed_tells_no_loop_that_is_gone() -> None:
    """
    Hypercorn's waits for a queue, which then cancels what it waits for.
    """
    calls: list[Any] = []

    async def begin() -> None:
        queue: asyncio.Queue[Message] = asyncio.Queue()
        queue.put_nowait({"type": "http.request", "body": b"", "more_body": False})
        peer = Peer()
        calls.append(RequestCancelationMiddleware(hang)(peer.scope, queue.get, peer.send))
        calls[0].send(None)

    assert in_thread(asyncio.run, begin()) == []
    assert in_thread(calls[0].close) == []
