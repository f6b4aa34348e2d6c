"""The first step of an application, in which nothing of a request is there but what it may ask for."""

from __future__ import annotations

import threading
from math import inf

import anyio
import pytest
from anyio import CancelScope, create_task_group, sleep_forever
from anyio.lowlevel import checkpoint, current_token

from hother.cancelable import CancelationReason, CancelationToken
from hother.cancelable.asgi import TOKEN_KEY, RequestCancelationMiddleware, current_request_token
from hother.cancelable.asgi._types import Message, Receive, Scope, Send
from tests.asgi_peer import Peer
from tests.interruption import at_line

HOUR = 3600.0
START: Message = {"type": "http.response.start", "status": 200, "headers": []}
LAST: Message = {"type": "http.response.body", "body": b"last"}


class LikeUvicorn(Peer):
    """A peer whose ``send()`` looks like uvicorn's, which is known to open no scopes."""

    async def send(self, message: Message) -> None:
        await super().send(message)

    send.__module__ = "uvicorn.protocols.http.httptools_impl"


async def test_who_cancels_the_request_in_its_first_step_is_cancelled_there() -> None:
    """
    All scopes that the step has opened know of it at once, and what it sends is dropped.
    """
    deadlines: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with CancelScope():
            async with create_task_group():
                deadlines.append(anyio.current_effective_deadline())
                scope[TOKEN_KEY].cancel()
                deadlines.append(anyio.current_effective_deadline())
                await send(START)
                await checkpoint()
                raise AssertionError("not reached")

    peer = Peer()
    await peer.run(RequestCancelationMiddleware(app))

    assert deadlines == [inf, -inf]
    assert peer.status == 503


async def test_who_cancels_the_request_in_its_first_step_need_not_wait() -> None:
    """
    An application that ends without an answer is answered for.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope[TOKEN_KEY].cancel()
        scope[TOKEN_KEY].cancel(message="again")

    peer = Peer()
    await peer.run(RequestCancelationMiddleware(app))

    assert peer.status == 503


@pytest.mark.parametrize("waits_before", [False, True])
async def test_a_thread_may_cancel_at_the_very_end(waits_before: bool) -> None:
    """
    The loop hears of it when the request is over, and nothing happens any more.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if waits_before:
            await checkpoint()
        await send(START)
        await send(LAST)
        thread = threading.Thread(target=scope[TOKEN_KEY].cancel)
        thread.start()
        thread.join()

    peer = Peer()
    await peer.run(RequestCancelationMiddleware(app))
    await checkpoint()

    assert peer.complete
    assert peer.scope[TOKEN_KEY].is_cancelled


async def test_of_two_causes_at_once_the_first_decides() -> None:
    """
    A middleware further in hears of both in one go.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope[TOKEN_KEY].check()
        outer[0].cancel(CancelationReason.TIMEOUT, "first")
        assert [cause.message for cause in scope[TOKEN_KEY].causes] == ["first", "second"]
        await sleep_forever()

    async def between(scope: Scope, receive: Receive, send: Send) -> None:
        token: CancelationToken = scope[TOKEN_KEY]
        token.add_callback(lambda _: token.cancel(message="second"))
        outer.append(token)
        await inner(scope, receive, send)

    outer: list[CancelationToken] = []
    inner = RequestCancelationMiddleware(app)
    peer = Peer()
    await peer.run(RequestCancelationMiddleware(between))

    assert peer.status == 504


async def test_a_task_that_outlives_the_request_works_for_none_any_more() -> None:
    """
    It is told that the client has left, and works for no request any more.
    """
    answers: list[object] = []
    is_over = anyio.Event()

    async def outlive(receive: Receive) -> None:
        assert current_request_token() is not None
        await is_over.wait()
        answers.extend([(await receive())["type"], current_request_token()])

    async with create_task_group() as tasks:

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            tasks.start_soon(outlive, receive)
            with CancelScope(shield=True):
                await anyio.sleep(1)
            await send(START)
            await send(LAST)

        peer = Peer()
        await RequestCancelationMiddleware(app)(peer.scope, peer.receive, peer.send)
        is_over.set()

    assert answers == ["http.disconnect", None]


async def test_who_keeps_receive_of_a_request_that_never_asked_is_told_that_it_is_over() -> None:
    """
    The request has had no reader at all.
    """
    kept: list[Receive] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        kept.append(receive)
        await send(START)
        await send(LAST)

    peer = Peer()
    await RequestCancelationMiddleware(app)(peer.scope, peer.receive, peer.send)

    assert [(await kept[0]())["type"] for _ in range(2)] == ["http.disconnect"] * 2


async def test_a_cancel_while_a_failed_first_step_is_answered_interrupts_nothing_else() -> None:
    """
    The scope that was not needed by then is not put around what the server does next.
    """
    token = CancelationToken()
    token.cancel()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        token.check()

    peer = Peer()
    peer.stall()
    went_on_at: list[float] = []

    async def serve() -> None:
        await peer.run(RequestCancelationMiddleware(app, answer_timeout=5))
        await anyio.sleep(1)
        went_on_at.append(anyio.current_time())

    async with create_task_group() as tasks:
        tasks.start_soon(serve)
        await anyio.sleep(1)
        peer.scope[TOKEN_KEY].cancel()
        await anyio.sleep(1)
        peer.release()

    assert peer.status == 503
    assert went_on_at == [3]


@pytest.mark.parametrize("in_scope", [False, True])
async def test_a_message_to_a_server_that_opens_no_scopes_can_be_interrupted(in_scope: bool) -> None:
    """
    The scope is put in where the message waits: inside of what the application has opened.
    """
    peer = LikeUvicorn()
    steps: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with CancelScope(shield=in_scope):
            await send(START)
            peer.stall()
            await send(LAST)
            steps.append(anyio.current_time())
            await anyio.sleep(HOUR)
            steps.append(anyio.current_time())

    await peer.run(RequestCancelationMiddleware(app, default_timeout=1, answer_timeout=5))

    assert steps == [6, HOUR + 6]
    assert not peer.complete


async def test_a_signal_handler_may_cancel_at_any_line(way: str) -> None:
    """
    Those in which scopes are put in included: the request ends, is answered, and what is around it goes on.
    """
    if way != "quiet" and not hasattr(current_token().native_token, "call_at"):
        pytest.skip("on Trio there are many lines, and these are the same ones")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with CancelScope():
            await checkpoint()
            await sleep_forever()

    line = 0
    while True:
        line += 1
        peer = Peer()

        def cancel(peer: Peer = peer) -> None:
            if TOKEN_KEY in peer.scope:
                peer.scope[TOKEN_KEY].cancel(CancelationReason.SIGNAL)

        with CancelScope() as around:
            async with create_task_group() as tasks:
                with at_line(line, cancel) as where:
                    tasks.start_soon(peer.run, RequestCancelationMiddleware(app))
                    for _ in range(3):
                        await checkpoint()
                cancel()  # if there was no such line, or no token yet
            await checkpoint()
        assert peer.status == 503, where
        assert not around.cancelled_caught
        if not where:
            break

    assert line > 100


async def test_who_cancels_the_request_after_a_first_step_that_failed_has_it_answered() -> None:
    """
    As a signal handler may, before the failure has got to the server. It gets there all the same.
    """
    peer = Peer()

    class FailureError(Exception):
        def __str__(self) -> str:
            cancelled.append(peer.scope[TOKEN_KEY].cancel())
            return "failed"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise FailureError from ValueError()  # which is looked at, since it has a cause

    cancelled: list[bool] = []
    with pytest.raises(FailureError):
        await RequestCancelationMiddleware(app)(peer.scope, peer.receive, peer.send)
    assert cancelled[0]
    assert peer.status == 503
