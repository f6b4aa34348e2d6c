"""Moments at which two things meet that seldom meet: each was once wrong."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio import create_task_group
from anyio.lowlevel import current_token

from hother.cancelable.asgi import (
    TOKEN_KEY,
    RequestCancelationMiddleware,
    RequestPolicy,
    _crowd,
    apply_policy,
    clean_up_with,
    current_request_token,
)
from hother.cancelable.asgi._exchange import EXCHANGE_KEY
from hother.cancelable.asgi._types import ASGIApp, Message, Receive, Scope, Send
from tests.asgi_peer import Peer
from tests.interruption import at_line

HOUR = 3600.0
path: ContextVar[str] = ContextVar("path")
START: Message = {"type": "http.response.start", "status": 200, "headers": []}
LAST: Message = {"type": "http.response.body", "body": b"last"}


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    await send(START)
    await send(LAST)


@pytest.mark.parametrize(("outer", "inner"), [(5.0, 9.0), (9.0, 5.0), (5.0, 5.0)])
async def test_two_middlewares_leave_a_message_that_is_stuck_in_the_order_they_passed_it_on(
    outer: float, inner: float
) -> None:
    """
    Both give up a message that the server does not take from a client that has left.
    """
    peer = Peer()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await anyio.sleep(HOUR)
        await peer.send(message)

    twice = RequestCancelationMiddleware(
        RequestCancelationMiddleware(answer, answer_timeout=inner), answer_timeout=outer
    )
    async with create_task_group() as tasks:
        tasks.start_soon(twice, peer.scope, peer.receive, send)
        await anyio.sleep(1)
        peer.disconnect()

    assert anyio.current_time() == 6


async def test_two_middlewares_go_on_when_a_message_that_was_stuck_is_sent() -> None:
    """
    In the time that a client that has left is given.
    """
    peer = Peer()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await anyio.sleep(3)
        await peer.send(message)

    twice = RequestCancelationMiddleware(RequestCancelationMiddleware(answer))
    async with create_task_group() as tasks:
        tasks.start_soon(twice, peer.scope, peer.receive, send)
        await anyio.sleep(1)
        peer.disconnect()

    assert anyio.current_time() == 3
    assert peer.sent == [START, LAST]


async def test_a_policy_that_a_request_in_line_applies_counts_from_its_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    And not from the beginning of the loop's clock, although the request is not monitored yet.
    """
    monkeypatch.setattr(_crowd, "FEW", 0)
    monkeypatch.setattr(_crowd, "PATIENCE", 0.025)
    await anyio.sleep(HOUR)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(0.001)
        apply_policy(RequestPolicy(timeout=5))
        await anyio.sleep(4)
        await send(START)
        await anyio.sleep(4)

    peer = Peer()
    await peer.run(RequestCancelationMiddleware(app))

    assert peer.status == 200
    assert anyio.current_time() == HOUR + 5


async def test_a_deadline_in_a_crowd_is_heard_of_in_the_request_s_own_context(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Callbacks of its token log its user, and not that of the request that wakes all others.
    """
    monkeypatch.setattr(_crowd, "FEW", 0)
    monkeypatch.setattr(_crowd, "PATIENCE", 0.025)
    heard: list[tuple[str, str, bool]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        token = scope[TOKEN_KEY]
        token.add_callback(
            lambda _: heard.append((scope["path"], path.get(), current_request_token() is token))
        )
        await anyio.sleep(HOUR)

    guarded = RequestCancelationMiddleware(app, 3.0)

    async def server(number: int) -> None:
        path.set(f"/{number}")
        await Peer(path=f"/{number}").run(guarded)

    async with create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(server, number)

    assert sorted(heard) == [(f"/{number}", f"/{number}", True) for number in range(4)]


@pytest.mark.only_on("asyncio")
async def test_a_request_that_is_cancelled_natively_in_a_clean_up_is_not_in_flight_for_ever() -> None:
    """
    Nor does the server's end have to wait for it, and the other clean-up tasks run.
    """
    cleaned: list[str] = []

    async def slow() -> None:
        await anyio.sleep(2)
        cleaned.append("slow")

    async def quick() -> None:
        await anyio.sleep(1)
        cleaned.append("quick")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        clean_up_with(slow)
        clean_up_with(quick)
        await answer(scope, receive, send)

    guarded = RequestCancelationMiddleware(app)
    task = asyncio.ensure_future(Peer().run(guarded))
    await anyio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert cleaned == ["quick"]
    await guarded._shutdown.drain(HOUR)
    assert anyio.current_time() == 2


async def test_a_task_hears_of_the_end_of_a_request_that_is_cancelled_while_its_outcome_is_sent() -> None:
    """
    It outlives the request, and waits for a message.
    """
    heard: list[str] = []
    peer = Peer()

    async def listen(receive: Receive) -> None:
        while "http.disconnect" not in heard:
            heard.append((await receive())["type"])

    async def stuck(message: Message) -> None:
        await anyio.sleep(HOUR)

    async with create_task_group() as tasks:

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            tasks.start_soon(listen, receive)
            await anyio.sleep(1)
            scope[TOKEN_KEY].cancel()

        with anyio.move_on_after(2):
            await RequestCancelationMiddleware(app)(peer.scope, peer.receive, stuck)
        tasks.cancel_scope.deadline = HOUR

    assert heard == ["http.request", "http.disconnect"]


async def test_a_message_is_dropped_that_a_task_sends_once_the_outcome_is_sent() -> None:
    """
    Though the application called ``send()`` before, and left it to the task to await that.
    """
    peer = Peer(strict=True)

    async with create_task_group() as tasks:

        async def finish(sending: Awaitable[None]) -> None:
            await anyio.sleep(1)
            await sending

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            tasks.start_soon(finish, send(START))
            scope[TOKEN_KEY].cancel()

        await peer.run(RequestCancelationMiddleware(app))

    assert peer.status == 503
    assert [message["type"] for message in peer.sent] == ["http.response.start", "http.response.body"]


async def test_a_server_may_refuse_a_message_before_its_send_is_awaited() -> None:
    """
    That its client has left: its ``send()`` need not be a coroutine function.
    """
    was_cancelled: list[bool] = []
    peer = Peer()

    def refuse(message: Message) -> Any:
        raise BrokenPipeError("the client has left")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send(START)
        finally:
            was_cancelled.append(scope[TOKEN_KEY].is_cancelled)

    with pytest.raises(BrokenPipeError):
        await RequestCancelationMiddleware(app)(peer.scope, peer.receive, refuse)

    assert was_cancelled == [True]


@pytest.mark.parametrize("message", [{}, None, {"type": "http.request", "body": 1}], ids=repr)
async def test_a_message_that_makes_no_sense_is_an_error_where_it_is_asked_for(message: Any) -> None:
    """
    And neither the end of Trio's run, nor an application that waits for ever.
    """
    peer = Peer()

    async def receive() -> Any:
        await anyio.sleep(1)
        return message

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises((KeyError, TypeError)):
            await receive()
        await answer(scope, receive, send)

    await RequestCancelationMiddleware(app)(peer.scope, receive, peer.send)

    assert peer.status == 200
    assert anyio.current_time() == 1


@pytest.mark.only_on("asyncio")
async def test_if_what_the_server_waits_for_is_cancelled_the_application_hears_that() -> None:
    """
    As it does without the middleware; it does not wait for ever.
    """
    peer = Peer()

    async def receive() -> Message:
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(1, future.cancel)
        return await future

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with anyio.fail_after(HOUR):
            await receive()

    with pytest.raises(asyncio.CancelledError):
        await RequestCancelationMiddleware(app)(peer.scope, receive, peer.send)

    assert anyio.current_time() == 1


@pytest.mark.real_time
async def test_a_shutdown_that_begins_in_another_loop_does_not_draw_a_request_into_it() -> None:
    """
    While the request takes its first step, nobody in another thread can tell its loop.
    """
    is_in_first_step, may_go_on = threading.Event(), threading.Event()
    peer = Peer()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        is_in_first_step.set()
        assert may_go_on.wait(10)
        await anyio.sleep(0.01)
        await answer(scope, receive, send)

    guarded = RequestCancelationMiddleware(app, 5.0)

    def serve() -> None:
        anyio.run(guarded, peer.scope, peer.receive, peer.send, backend="asyncio")

    async with create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, serve)
        await anyio.to_thread.run_sync(is_in_first_step.wait, 10)
        exchange = peer.scope[EXCHANGE_KEY]
        guarded.begin_shutdown()
        may_go_on.set()

    assert peer.status == 200
    assert exchange.loop is not current_token()


@pytest.mark.parametrize("depth", [1, 2])
async def test_a_shutdown_that_begins_in_a_first_step_is_heard_there(depth: int) -> None:
    """
    A signal handler may begin it while the handler computes, and looks at its token now and then.
    """
    seen: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope[TOKEN_KEY].is_cancelled)
        guarded.begin_shutdown()
        seen.append(scope[TOKEN_KEY].is_cancelled)
        await anyio.sleep(1)

    guarded = RequestCancelationMiddleware(
        app if depth == 1 else RequestCancelationMiddleware(app), on_shutdown="cancel"
    )
    peer = Peer()
    await peer.run(guarded)

    assert seen == [False, True]
    assert peer.status == 503


async def answer_late(scope: Scope, receive: Receive, send: Send) -> None:
    await anyio.sleep(1)
    await answer(scope, receive, send)


async def ask_for_more(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await answer(scope, receive, send)


@pytest.mark.parametrize("app", [answer, answer_late, ask_for_more])
def test_a_request_may_be_all_that_an_event_loop_runs(
    anyio_backend: tuple[str, dict[str, Any]], app: ASGIApp
) -> None:
    """
    AnyIO knows its task, then, though no scope is open in it; and has to know it afterwards.
    """
    name, options = anyio_backend
    peer = Peer()

    async def serve() -> None:
        await RequestCancelationMiddleware(app)(peer.scope, peer.receive, peer.send)

    anyio.run(serve, backend=name, backend_options=options)

    assert peer.status == 200


@pytest.mark.parametrize("app", [answer, answer_late, ask_for_more])
def test_a_middleware_in_another_may_be_all_that_an_event_loop_runs(
    anyio_backend: tuple[str, dict[str, Any]], app: ASGIApp
) -> None:
    """
    Of a server that does not use AnyIO. The scopes of both are put in from the inside out, and left so.
    """
    name, options = anyio_backend
    peer = Peer()
    middleware = RequestCancelationMiddleware(RequestCancelationMiddleware(app))

    async def serve() -> None:
        await middleware(peer.scope, peer.receive, peer.send)

    async def serve_in_a_task_of_its_own() -> None:
        await (asyncio.create_task(serve()) if name == "asyncio" else serve())

    anyio.run(serve_in_a_task_of_its_own, backend=name, backend_options=options)

    assert peer.status == 200


@pytest.mark.only_on("asyncio")
async def test_the_server_is_told_of_who_leaves_a_scope_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    As AnyIO tells it, once the answer was sent; and the request is over all the same.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        opened.__enter__()
        await anyio.sleep(0.01)
        await anyio.sleep(0.01)  # ours is there only now
        await answer(scope, receive, send)

    monkeypatch.setattr(_crowd, "FEW", 0)  # nobody monitors it
    monkeypatch.setattr(_crowd, "PATIENCE", 1)
    opened = anyio.CancelScope()
    peer, guarded = Peer(), RequestCancelationMiddleware(app)
    task = asyncio.create_task(guarded(peer.scope, peer.receive, peer.send))
    with pytest.raises(RuntimeError, match="cancel scope"):
        await task

    assert peer.status == 200
    await guarded._shutdown.drain(HOUR)
    assert anyio.current_time() == 0.02


async def test_a_request_whose_end_is_broken_off_is_not_in_flight_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    By a signal handler that raises.
    """

    class Stop(BaseException):
        pass

    leave = _crowd.Crowd.leave

    def leave_and_stop(crowd: Any, exchange: Any) -> None:
        leave(crowd, exchange)
        raise Stop

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(0.01)
        await answer(scope, receive, send)

    monkeypatch.setattr(_crowd, "FEW", 0)  # nobody monitors it
    monkeypatch.setattr(_crowd, "PATIENCE", 1)
    monkeypatch.setattr(_crowd.Crowd, "leave", leave_and_stop)
    peer, guarded = Peer(), RequestCancelationMiddleware(app)
    with pytest.raises(Stop):
        await guarded(peer.scope, peer.receive, peer.send)

    assert peer.status == 200
    await guarded._shutdown.drain(HOUR)
    assert anyio.current_time() == 0.01


@pytest.mark.only_on("asyncio")
async def test_a_signal_at_any_line_leaves_no_task_of_ours_behind() -> None:
    """
    It may stop the request while that is about to note in which loop it runs.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(1)

    number = 0
    where = ["the first line"]
    while where:
        number += 1
        peer = Peer()
        peer.stall()
        others = asyncio.all_tasks()
        guarded = RequestCancelationMiddleware(app, on_shutdown="cancel", answer_timeout=5)
        with at_line(number, guarded.begin_shutdown) as where:
            await guarded(peer.scope, peer.receive, peer.send)

        assert asyncio.all_tasks() == others, where
