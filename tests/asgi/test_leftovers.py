"""Nothing is left of a request that is over, however it ended."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Literal
from weakref import ref

import anyio
import pytest
from anyio import create_task_group, wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from hother.cancelable import Cancelable, CancelationToken, current_operation
from hother.cancelable._block import Block
from hother.cancelable.asgi import (
    TOKEN_KEY,
    RequestCancelationMiddleware,
    clean_up_with,
    current_request_token,
)
from hother.cancelable.asgi._agenda import Agenda
from hother.cancelable.asgi._course import Course
from hother.cancelable.asgi._current import Mark, current_mark
from hother.cancelable.asgi._exchange import EXCHANGE_KEY, Exchange
from hother.cancelable.asgi._receive import Reader
from hother.cancelable.asgi._response import Response
from hother.cancelable.asgi._types import ASGIApp, Message, Receive, Scope, Send
from tests.asgi_peer import ALL_HABITS, HYPERCORN, Habits, Peer

HOUR = 3600.0
START: Message = {"type": "http.response.start", "status": 200, "headers": []}
LAST: Message = {"type": "http.response.body", "body": b"last"}

OURS = (Agenda, Block, Cancelable, CancelationToken, Course, Exchange, Reader, Response)


async def count_objects() -> Counter[str]:
    await anyio.sleep(
        2 * HOUR
    )  # asyncio keeps timers that were cancelled, and their contexts, until they are due
    gc.collect()
    return Counter(type(thing).__name__ for thing in gc.get_objects() if isinstance(thing, OURS))


class Server:
    """A program with one token for all requests, each of which runs an operation."""

    def __init__(self) -> None:
        self.token = CancelationToken()

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with Cancelable.with_token(scope[TOKEN_KEY], self.token) as operation:
            await receive()
            async with create_task_group() as tasks:
                tasks.start_soon(anyio.sleep, 1)
                async with Cancelable(timeout=HOUR, parent=operation):
                    await anyio.sleep(1)
            await send(START)
            await send(LAST)


async def answered(app: ASGIApp) -> None:
    await Peer().run(app)


async def left(app: ASGIApp) -> None:
    peer = Peer()
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, app)
        await anyio.sleep(0.5)
        peer.disconnect()


async def left_first(app: ASGIApp) -> None:
    peer = Peer(habits=HYPERCORN)
    peer.disconnect()
    await peer.run(app)


async def timed_out(app: ASGIApp) -> None:
    await Peer().run(RequestCancelationMiddleware(app, default_timeout=0.5))


async def cancelled_by_the_server(app: ASGIApp) -> None:
    with anyio.move_on_after(0.5):
        await Peer().run(app)


async def failed(app: ASGIApp) -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        scope[TOKEN_KEY].add_callback(print)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await Peer().run(RequestCancelationMiddleware(fail))


async def websocket_left(app: ASGIApp) -> None:
    peer = Peer(kind="websocket")
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, app)
        await anyio.sleep(0.5)
        peer.disconnect()


@pytest.mark.parametrize(
    "play",
    [answered, left, left_first, timed_out, cancelled_by_the_server, failed, websocket_left],
    ids=lambda play: play.__name__,
)
async def test_nothing_is_left_of_many_requests(play: Callable[[ASGIApp], Awaitable[None]]) -> None:
    """
    No task, no callback on a token that lives on, no object of ours, no current operation.
    """
    server = Server()
    middleware = RequestCancelationMiddleware(server.app)
    await play(middleware)
    tasks_before, objects_before = len(anyio.get_running_tasks()), await count_objects()

    for _ in range(50):
        await play(middleware)

    assert len(anyio.get_running_tasks()) == tasks_before
    assert server.token.statistics().callbacks == 0
    assert await count_objects() == objects_before
    assert current_operation() is None
    assert current_request_token() is None


async def test_nothing_is_left_after_a_thousand_disconnects_at_once() -> None:
    """
    A mass disconnect: all handlers end, and then there is nothing that could use the processor.
    """
    token = CancelationToken()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with Cancelable.with_token(scope[TOKEN_KEY], token):
            await anyio.sleep(HOUR)

    middleware = RequestCancelationMiddleware(app, default_timeout=HOUR)
    tasks_before, objects_before = len(anyio.get_running_tasks()), await count_objects()
    peers = [Peer(kind="http" if number % 2 else "websocket") for number in range(1000)]
    began = anyio.current_time()

    async with create_task_group() as tasks:
        for number in range(1000):
            tasks.start_soon(peers[number].run, middleware)
        await anyio.sleep(1)
        assert token.statistics().callbacks == 1000
        for number in range(1000):
            peers[number].disconnect()

    assert all(peer.returned and not peer.sent for peer in peers)
    assert anyio.current_time() == began + 1

    peers.clear()
    assert len(anyio.get_running_tasks()) == tasks_before
    assert token.statistics().callbacks == 0
    assert await count_objects() == objects_before


async def test_waiting_for_handlers_that_cannot_be_interrupted_costs_nothing() -> None:
    """
    The clock jumps only while the loop is idle: if anything kept asking, this test would not end.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(HOUR)

    peers = [Peer() for _ in range(10)]
    async with create_task_group() as tasks:
        for peer in peers:
            tasks.start_soon(peer.run, RequestCancelationMiddleware(app, default_timeout=60))
        await anyio.sleep(1)
        for peer in peers[::2]:
            peer.disconnect()

    assert anyio.current_time() == HOUR
    assert [peer.status for peer in peers] == [None, 504] * 5


@pytest.mark.parametrize("habits", ALL_HABITS, ids=str)
async def test_the_token_of_a_request_that_is_over_holds_nothing(habits: Habits) -> None:
    """
    Whoever keeps it keeps only the answer to why.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with Cancelable.with_token(scope[TOKEN_KEY]):
            async with create_task_group() as waiters:
                waiters.start_soon(scope[TOKEN_KEY].wait)
                await anyio.sleep(1)

    peer = Peer(habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app))
        await wait_all_tasks_blocked()
        assert peer.scope[TOKEN_KEY].statistics().callbacks == 3
        peer.disconnect()

    assert peer.scope[TOKEN_KEY].statistics().callbacks == 0


async def test_an_outer_token_forgets_the_requests_that_used_it() -> None:
    """
    Ten thousand requests on one long-lived token leave nothing on it.
    """
    outer = CancelationToken()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(LAST)

    middleware = RequestCancelationMiddleware(app)

    async def serve() -> None:
        peer = Peer()
        peer.scope[TOKEN_KEY] = outer
        await peer.run(middleware)

    for _ in range(50):
        await serve()

    gc.collect()
    assert outer.statistics().callbacks == 0


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("waits", [True, False], ids=["waits", "asks later"])
async def test_a_task_that_outlives_its_request_is_told_that_it_is_over(
    kind: Literal["http", "websocket"], waits: bool
) -> None:
    """
    It gets a disconnect, as from servers, instead of waiting for ever; what it sends is dropped.
    """
    answers: list[str] = []

    async def listen(receive: Receive, send: Send) -> None:
        if not waits:
            await anyio.sleep(1)
        message: Message = {"type": ""}
        while not message["type"].endswith(".disconnect"):
            message = await receive()
        answers.append(message["type"])
        await send({"type": f"{kind}.special"})

    peer = Peer(kind=kind, habits=HYPERCORN)
    with anyio.fail_after(HOUR):
        async with create_task_group() as tasks:

            async def app(scope: Scope, receive: Receive, send: Send) -> None:
                await receive()
                tasks.start_soon(listen, receive, send)
                await wait_all_tasks_blocked()

            await peer.run(RequestCancelationMiddleware(app))

    assert answers == [f"{kind}.disconnect"]
    assert peer.sent == []


async def test_cancelling_the_token_of_a_request_that_is_over_does_nothing() -> None:
    """
    A late cancel finds nobody, and breaks nothing.
    """
    peer = Peer()
    await peer.run(RequestCancelationMiddleware(Server().app))

    assert peer.scope[TOKEN_KEY].cancel()
    await wait_all_tasks_blocked()

    assert peer.status == 200


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_request_whose_coroutine_is_closed_is_over(kind: Literal["http", "websocket"]) -> None:
    """
    As an interpreter does with what is left: nothing can be waited for, and its monitors end by themselves.
    """
    ended: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await anyio.sleep(HOUR)
        except BaseException as error:
            ended.append(error)
            raise

    async def never(*_: object) -> Any:
        await anyio.sleep_forever()

    scope = Peer(kind=kind).scope
    before = len(anyio.get_running_tasks())
    steps: Any = RequestCancelationMiddleware(app, default_timeout=30)(scope, never, never)
    steps.send(None)
    await checkpoint()  # its monitors begin to wait
    steps.close()
    await wait_all_tasks_blocked()

    assert [type(error) for error in ended] == [GeneratorExit]
    assert not scope[TOKEN_KEY].is_cancelled
    assert scope[TOKEN_KEY].statistics().callbacks == 0
    assert scope[EXCHANGE_KEY] is None
    assert len(anyio.get_running_tasks()) == before


@pytest.mark.only_on("asyncio")  # whose loop can be played by hand
@pytest.mark.parametrize("waits", [1, 2, 3])
async def test_an_application_may_end_well_when_it_is_closed(waits: int) -> None:
    """
    Whatever it waits for: the request is over, and waits for nothing, though it was monitored.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for future in futures[1:]:
            await future
        with suppress(GeneratorExit):
            await futures[0]

    async def never(*_: object) -> Any:
        await anyio.sleep_forever()

    futures: list[asyncio.Future[None]] = [asyncio.Future() for _ in range(waits)]
    guarded, scope = RequestCancelationMiddleware(app, default_timeout=30), Peer().scope
    steps: Any = guarded(scope, never, never)
    steps.send(None)
    for future in futures[1:]:
        future.set_result(None)
        steps.send(None)
    await checkpoint()  # its monitors begin to wait
    steps.close()
    await wait_all_tasks_blocked()

    assert scope[EXCHANGE_KEY] is None
    assert not guarded._shutdown.in_flight


@pytest.mark.only_on("asyncio")  # where requests are awaited otherwise from some step on
async def test_what_an_application_has_waited_for_is_not_kept() -> None:
    """
    Until its end, which may be hours away.
    """

    class Rows:
        pass

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(3):
            future: asyncio.Future[Rows] = asyncio.Future()
            rows = Rows()
            results.append(ref(rows))
            asyncio.get_running_loop().call_soon(future.set_result, rows)
            del rows
            await future
            del future
        await anyio.sleep(1)
        alive.extend(result() for result in results)

    results: list[ref[Rows]] = []
    alive: list[Rows | None] = []
    await Peer().run(RequestCancelationMiddleware(app))

    assert alive == [None, None, None]


@pytest.mark.only_on("asyncio")  # Trio has no tasks that may leave a scope open
async def test_a_request_whose_coroutine_is_closed_by_another_task_is_over() -> None:
    """
    Not with the complaint of the scope that is left there, nor with clean-ups that would have to wait.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        clean_up_with(checkpoint)
        await anyio.sleep(HOUR)

    async def never(*_: object) -> Any:
        await anyio.sleep_forever()

    steps: Any = RequestCancelationMiddleware(app, default_timeout=30)(Peer().scope, never, never)

    async def begin() -> None:
        steps.send(None)
        await checkpoint()

    await asyncio.create_task(begin())  # a task group would complain, too, about the scope that is left open
    steps.close()
    await wait_all_tasks_blocked()


@pytest.mark.only_on("asyncio")
async def test_a_task_whose_message_is_refused_is_not_kept_by_its_own_error() -> None:
    """
    The error's traceback keeps the frames, and the task keeps the error.
    """
    peer = Peer()
    refused: list[ref[asyncio.Task[None]]] = []

    class Server:
        async def send(self, message: Message) -> None:
            raise RuntimeError("refused")

        send.__module__ = "uvicorn.protocols.http.httptools_impl"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.ensure_future(send(START))
        refused.append(ref(task))
        await asyncio.wait([task])
        assert isinstance(task.exception(), RuntimeError)

    gc.disable()
    try:
        await RequestCancelationMiddleware(app)(peer.scope, peer.receive, Server().send)
        await checkpoint()
        assert refused[0]() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("waits", [False, True])
async def test_a_request_begun_by_what_the_one_before_has_started_keeps_nothing_of_it(waits: bool) -> None:
    """As on a connection whose server reads the next request in the context of the one before."""
    depths: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if waits:
            await anyio.sleep(1)
        depths.append(depth_of(current_mark()))
        if len(depths) < 10:
            tasks.start_soon(run_after, scope["is_over"])
        await send(START)
        await send(LAST)

    async def run_after(is_over: anyio.Event) -> None:
        await is_over.wait()
        await run()

    async def run() -> None:
        peer = Peer()
        is_over = peer.scope["is_over"] = anyio.Event()
        await peer.run(guarded)
        is_over.set()

    guarded = RequestCancelationMiddleware(app)
    async with create_task_group() as tasks:
        await run()

    assert len(depths) == 10
    assert max(depths) == 2  # its own, and what the context has inherited


def depth_of(mark: Mark | None) -> int:
    depth = 0
    while mark is not None:
        depth, mark = depth + 1, mark[1]
    return depth
