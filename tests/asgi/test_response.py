"""How far a response has got, and what becomes of the application's messages."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import Any, Literal

import anyio
import pytest
from anyio import create_task_group
from anyio.lowlevel import checkpoint

from hother.cancelable.asgi import RequestCancelationMiddleware
from hother.cancelable.asgi._exchange import EXCHANGE_KEY
from hother.cancelable.asgi._response import ENDS_ITSELF
from hother.cancelable.asgi._types import Message, Receive, Scope, Send
from tests.asgi_peer import ALL_HABITS, GUNICORN, HYPERCORN_H2, STRICT, UVICORN, Habits, Peer

HOUR = 3600.0
START: Message = {"type": "http.response.start", "status": 200, "headers": []}
START_WITH_TRAILERS: Message = {**START, "trailers": True}
PART: Message = {"type": "http.response.body", "body": b"part", "more_body": True}
LAST: Message = {"type": "http.response.body", "body": b"last"}
TRAILERS: Message = {"type": "http.response.trailers", "headers": []}
MORE_TRAILERS: Message = {**TRAILERS, "more_trailers": True}
PATHSEND: Message = {"type": "http.response.pathsend", "path": "/file"}
ZEROCOPY: Message = {"type": "http.response.zerocopysend", "file": 0}
MORE_ZEROCOPY: Message = {**ZEROCOPY, "more_body": True}
EARLY_HINT: Message = {"type": "http.response.early_hint", "links": [b"</style.css>"]}
PUSH: Message = {"type": "http.response.push", "path": "/style.css", "headers": []}
DEBUG: Message = {"type": "http.response.debug", "info": {"template": "page.html"}}
ACCEPT: Message = {"type": "websocket.accept"}
WS_SEND: Message = {"type": "websocket.send", "text": "hello"}
CLOSE: Message = {"type": "websocket.close", "code": 1000}
DENY: Message = {"type": "websocket.http.response.start", "status": 403, "headers": []}
DENY_PART: Message = {"type": "websocket.http.response.body", "body": b"no", "more_body": True}
DENY_LAST: Message = {"type": "websocket.http.response.body", "body": b"no"}

INCOMPLETE: dict[str, list[Message]] = {
    "nothing": [],
    "start": [START],
    "body": [START, PART],
    "trailers promised": [START_WITH_TRAILERS, PART, LAST],
    "more trailers": [START_WITH_TRAILERS, LAST, MORE_TRAILERS],
    "pathsend, trailers promised": [START_WITH_TRAILERS, PATHSEND],
    "zerocopysend": [START, MORE_ZEROCOPY],
    "zerocopysend, trailers promised": [START_WITH_TRAILERS, ZEROCOPY],
    "early hint": [EARLY_HINT],
    "push": [PUSH],
    "debug": [DEBUG],
}
COMPLETE: dict[str, list[Message]] = {
    "body": [START, LAST],
    "many bodies": [START, PART, PART, LAST],
    "trailers": [START_WITH_TRAILERS, PART, LAST, MORE_TRAILERS, TRAILERS],
    "pathsend": [START, PATHSEND],
    "pathsend and trailers": [START_WITH_TRAILERS, PATHSEND, TRAILERS],
    "zerocopysend": [START, MORE_ZEROCOPY, ZEROCOPY],
    "zerocopysend and body": [START, MORE_ZEROCOPY, LAST],
    "zerocopysend and trailers": [START_WITH_TRAILERS, ZEROCOPY, TRAILERS],
    "extensions": [EARLY_HINT, PUSH, DEBUG, START, PUSH, LAST],
}
INCOMPLETE_WS: dict[str, list[Message]] = {
    "nothing": [],
    "accept": [ACCEPT],
    "send": [ACCEPT, WS_SEND],
    "denial start": [DENY],
    "denial body": [DENY, DENY_PART],
}
COMPLETE_WS: dict[str, list[Message]] = {
    "close": [ACCEPT, WS_SEND, CLOSE],
    "close before accept": [CLOSE],
    "denial": [DENY, DENY_PART, DENY_LAST],
}


def named(cases: dict[str, list[Message]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("messages", list(cases.values()), ids=list(cases))


async def serve_until_left(
    messages: list[Message], kind: Literal["http", "websocket"], **options: Any
) -> tuple[bool, float]:
    """Send *messages*, and work on for an hour; the client leaves after a second.

    Returns:
        Whether the token was cancelled, and when the application ended.
    """
    peer = Peer(kind=kind, extensions={"websocket.http.response": {}})
    ended: list[tuple[bool, float]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            for message in messages:
                await send(message)
            await anyio.sleep(HOUR)
        finally:
            ended.append((scope["cancelation_token"].is_cancelled, anyio.current_time()))

    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app, **options))
        await anyio.sleep(1)
        peer.disconnect()

    assert [message for message in peer.sent if message in messages] == messages
    return ended[0]


# --- Phases


@named(INCOMPLETE)
async def test_an_incomplete_response_can_be_disconnected_from(messages: list[Message]) -> None:
    """
    The handler is cancelled the moment that its client leaves.
    """
    assert await serve_until_left(messages, "http") == (True, 1)


@named(COMPLETE)
async def test_a_complete_response_cannot_be_disconnected_from(messages: list[Message]) -> None:
    """
    What runs on is not cancelled, neither by the client's leaving nor by the deadline.
    """
    assert await serve_until_left(messages, "http", default_timeout=10) == (False, HOUR)


@named(INCOMPLETE_WS)
async def test_an_open_websocket_can_be_disconnected_from(messages: list[Message]) -> None:
    """
    Before and after it was accepted, and while it is being denied.
    """
    assert await serve_until_left(messages, "websocket") == (True, 1)


@named(COMPLETE_WS)
async def test_a_closed_websocket_cannot_be_disconnected_from(messages: list[Message]) -> None:
    """
    The application may clean up after its close or its denial.
    """
    assert await serve_until_left(messages, "websocket", websocket_timeout=10) == (False, HOUR)


@named(INCOMPLETE)
async def test_an_incomplete_response_can_time_out(messages: list[Message]) -> None:
    """
    Promised trailers that do not come are late, too.
    """
    peer = Peer()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        await anyio.sleep(HOUR)

    await peer.run(RequestCancelationMiddleware(app, default_timeout=10))

    assert anyio.current_time() == 10
    assert peer.status == (504 if peer.sent[: len(messages)] != peer.sent else 200)


# --- Messages


@named(COMPLETE | {f"in part: {name}": messages for name, messages in INCOMPLETE.items()})
async def test_messages_pass_untouched(messages: list[Message]) -> None:
    """
    The very objects, in order; those of extensions included.
    """
    peer = Peer()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    await peer.run(RequestCancelationMiddleware(app))

    assert [id(message) for message in peer.sent] == [id(message) for message in messages]


@pytest.mark.parametrize("habits", ALL_HABITS, ids=str)
async def test_nothing_is_sent_to_a_client_that_left(habits: Habits) -> None:
    """
    Messages are dropped quietly: a server may wait for ever, or raise, or count it as an error.
    """
    peer = Peer(habits=habits)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(PART)
        await anyio.sleep(HOUR)
        await send(PART)
        await send(LAST)

    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app, on_disconnect="ignore"))
        await anyio.sleep(1)
        peer.disconnect()

    assert peer.sent == [START, PART]
    assert anyio.current_time() == HOUR


@pytest.mark.parametrize("habits", ALL_HABITS, ids=str)
async def test_an_application_that_only_sends_is_cancelled(habits: Habits) -> None:
    """
    Not even a server whose ``send()`` never waits keeps it from ending.
    """
    peer = Peer(habits=habits)
    sent = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send(START)
        await anyio.sleep(1)
        while True:
            await send(PART)
            sent += 1
            assert sent < 1000

    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app))
        await peer.until(lambda: peer.sent)
        peer.disconnect()

    assert sent == 0


async def test_a_dropped_message_lets_others_run() -> None:
    """
    An application that ignores its client's leaving does not take the loop for itself.
    """
    peer = Peer()
    others = 0

    async def work() -> None:
        nonlocal others
        while True:
            await anyio.lowlevel.checkpoint()
            others += 1

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await anyio.sleep(1)
        async with create_task_group() as workers:
            workers.start_soon(work)
            for _ in range(100):
                await send(PART)
            workers.cancel_scope.cancel()

    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app, on_disconnect="ignore"))
        await peer.until(lambda: peer.sent)
        peer.disconnect()

    assert others > 50


@pytest.mark.parametrize("habits", [UVICORN, HYPERCORN_H2], ids=str)
async def test_a_send_that_waits_for_a_stalled_client_ends_when_it_leaves(habits: Habits) -> None:
    """
    The application is cancelled where it waits.
    """
    peer = Peer(habits=habits)
    ended_at: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        peer.stall()
        try:
            await send(PART)
            await anyio.sleep(HOUR)
        finally:
            ended_at.append(anyio.current_time())

    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app))
        await anyio.sleep(1)
        peer.disconnect()

    assert ended_at == [1]


async def test_an_error_of_the_servers_send_reaches_the_application() -> None:
    """
    Some servers report the disconnect there first; it is an ``OSError``, and leaves as it is.
    """
    peer = Peer(habits=STRICT)
    caught: list[OSError] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        peer.disconnect()
        try:
            await send(START)
        except OSError as error:
            caught.append(error)
            raise

    with pytest.raises(OSError, match="the client has left") as raised:
        await peer.run(RequestCancelationMiddleware(app))

    assert caught == [raised.value]


async def test_what_the_application_sends_after_its_outcome_is_dropped() -> None:
    """
    A handler that is shielded from its deadline finds that it was answered for.
    """
    peer = Peer()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(HOUR)
            await send(START)
            await send(LAST)

    await peer.run(RequestCancelationMiddleware(app, default_timeout=1))

    assert peer.status == 504
    assert len(peer.sent) == 2
    assert peer.sent_at == [1, 1]
    assert anyio.current_time() == HOUR


async def test_a_response_that_was_cut_short_stays_so() -> None:
    """
    What a shielded handler still sends after the deadline must not make it look complete.
    """
    peer = Peer()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(PART)
        with anyio.CancelScope(shield=True):
            await anyio.sleep(HOUR)
            await send(PART)
            await send(LAST)

    await peer.run(RequestCancelationMiddleware(app, default_timeout=1))

    assert peer.sent == [START, PART]


async def test_a_response_that_ends_just_in_time_is_complete() -> None:
    """
    A last message that the server has already is not late, if its client reads it soon.
    """
    peer = Peer()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        peer.stall()
        await send(LAST)

    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app, default_timeout=1, answer_timeout=5))
        await anyio.sleep(5)
        peer.release()

    assert peer.complete
    assert peer.sent_at == [0, 5]


async def test_a_client_that_never_reads_the_last_message_does_not_keep_the_request() -> None:
    """
    After the deadline it has the time for answers; then background tasks have their turn.
    """
    peer = Peer()
    steps: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        peer.stall()
        await send(LAST)
        steps.append(anyio.current_time())
        await anyio.sleep(HOUR)
        steps.append(anyio.current_time())

    await peer.run(RequestCancelationMiddleware(app, default_timeout=1, answer_timeout=5))

    assert steps == [6, HOUR + 6]
    assert not peer.complete


async def test_all_that_a_client_never_reads_is_given_up_at_once() -> None:
    """
    Whichever task sends it, and however many of them do.
    """
    peer = Peer()
    ends: list[tuple[str, float]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def hand_over(name: str, message: Message) -> None:
            await send(message)
            ends.append((name, anyio.current_time()))

        await send(START)
        peer.stall()
        async with create_task_group() as tasks:
            tasks.start_soon(hand_over, "part", PART)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(hand_over, "another part", PART)
            await anyio.wait_all_tasks_blocked()
            await hand_over("last", LAST)
        await anyio.sleep(1)

    await peer.run(RequestCancelationMiddleware(app, default_timeout=1, answer_timeout=5))

    assert sorted(ends) == [("another part", 6), ("last", 6), ("part", 6)]
    assert anyio.current_time() == 7


async def test_a_message_is_given_up_once_whatever_else_happens_meanwhile() -> None:
    """
    A client that leaves, too, gives it no more time.
    """
    peer = Peer(habits=GUNICORN)  # which goes on waiting for the client
    ends: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        peer.stall()
        await send(LAST)
        ends.append(anyio.current_time())

    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app, default_timeout=1, answer_timeout=5))
        await anyio.sleep(3)
        peer.disconnect()

    assert ends == [6]


@pytest.mark.only_on("asyncio")
@pytest.mark.parametrize(
    "at",  # before it is given up; before that is over, and just then
    [
        0.5,
        3,
        pytest.param(
            6,
            marks=pytest.mark.skipif(
                sys.version_info < (3, 11), reason="asyncio cannot tell two cancels of one tick apart"
            ),
        ),
    ],
)
async def test_a_server_may_cancel_what_its_client_never_reads(at: float) -> None:
    """
    Its cancelation is not taken for the one of a message that is given up.
    """
    peer = Peer()
    goes_on: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        peer.stall()
        await send(LAST)
        await checkpoint()
        goes_on.append(anyio.current_time())

    task = asyncio.ensure_future(
        peer.run(RequestCancelationMiddleware(app, default_timeout=1, answer_timeout=5))
    )
    await anyio.sleep(at)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not goes_on
    assert anyio.current_time() == at


async def test_a_message_is_given_up_quietly_where_a_cancelation_has_passed_before() -> None:
    """
    What it has done to the task is not taken for one that comes meanwhile: the clean-up goes on.
    """
    peer = Peer()
    goes_on: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        with anyio.move_on_after(0.5):
            try:
                await anyio.sleep(1)
            finally:
                peer.stall()
                with anyio.CancelScope(shield=True):
                    await send(LAST)
                    goes_on.append(anyio.current_time())

    await peer.run(RequestCancelationMiddleware(app, default_timeout=1, answer_timeout=5))

    assert goes_on == [6]


@pytest.mark.only_on("asyncio")
async def test_a_message_is_given_up_quietly_where_a_native_cancelation_was_caught_before() -> None:
    """
    Applications may do that, whether or not they say so by ``uncancel()``.
    """
    peer = Peer()
    goes_on: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        with suppress(asyncio.CancelledError):
            await anyio.sleep(1)
        peer.stall()
        await send(LAST)
        goes_on.append(anyio.current_time())

    task = asyncio.ensure_future(
        peer.run(RequestCancelationMiddleware(app, default_timeout=1, answer_timeout=5))
    )
    await anyio.sleep(0.5)
    task.cancel()
    await task

    assert goes_on == [6]


@pytest.mark.only_on("asyncio")
@pytest.mark.parametrize("answer_timeout", [0.0, 5.0])
@pytest.mark.parametrize("is_caught_before", [False, True])
async def test_a_server_may_cancel_in_the_moment_in_which_its_client_leaves(
    answer_timeout: float, is_caught_before: bool
) -> None:
    """
    Its cancelation is not taken for one that was there before the message.
    """
    peer = Peer()
    goes_on: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if is_caught_before:
            with suppress(asyncio.CancelledError):
                await anyio.sleep(1)
        await send(START)
        peer.stall()
        await send(LAST)
        await checkpoint()
        goes_on.append(anyio.current_time())

    guarded = RequestCancelationMiddleware(app, default_timeout=2, answer_timeout=answer_timeout)
    task = asyncio.ensure_future(peer.run(guarded))
    await anyio.sleep(0.5)
    if is_caught_before:
        task.cancel()
    await anyio.sleep(0.5)
    exchange = peer.scope[EXCHANGE_KEY]
    task.cancel()
    exchange.abandon()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not goes_on
    assert anyio.current_time() == 1


class LikeUvicorn:
    """A server that takes each message at once, and is known to open no scopes."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    async def send(self, message: Message) -> None:
        self.sent.append(message["type"])
        if message.get("status") == 299:
            raise RuntimeError("refused")

    send.__module__ = "uvicorn.protocols.http.httptools_impl"


def test_what_an_application_sends_when_it_is_closed_without_an_event_loop_is_sent() -> None:
    """
    What there was of tasks and scopes is gone then.
    """
    peer, server = Peer(), LikeUvicorn()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send(START)
            await asyncio.sleep(1)
        finally:
            await send(LAST)

    call = RequestCancelationMiddleware(app)(peer.scope, peer.receive, server.send)

    async def begin() -> None:
        call.send(None)

    asyncio.run(begin())
    with suppress(RuntimeError):  # of asyncio, which has closed its loop
        call.close()

    assert server.sent == ["http.response.start", "http.response.body"]


async def test_a_response_that_is_begun_anew_without_trailers_ends_with_its_body() -> None:
    """
    A server may refuse to send trailers. What runs on then is not cancelled when the client leaves.
    """
    peer, server = Peer(), LikeUvicorn()
    goes_on: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(RuntimeError):
            await send({**START, "status": 299, "trailers": True})
        await send(START)
        await send(LAST)
        peer.disconnect()
        await anyio.sleep(1)
        goes_on.append(anyio.current_time())

    await RequestCancelationMiddleware(app)(peer.scope, peer.receive, server.send)

    assert goes_on == [1]


async def test_an_application_may_use_its_messages_again(caplog: pytest.LogCaptureFixture) -> None:
    """
    For whatever it likes.
    """
    peer, server = Peer(), LikeUvicorn()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        message = dict(START)
        await send(message)
        message.clear()
        peer.disconnect()
        await anyio.sleep(1)

    with caplog.at_level("INFO", "hother.cancelable.access"):
        await RequestCancelationMiddleware(app)(peer.scope, peer.receive, server.send)

    assert " 200 cut" in caplog.text


async def test_without_a_deadline_a_client_may_read_as_slowly_as_it_likes() -> None:
    """
    As long as it is there.
    """
    peer = Peer()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        peer.stall()
        await send(PART)
        peer.stall()
        await send(LAST)

    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app))
        for _ in range(2):
            await anyio.sleep(HOUR)
            peer.release()

    assert peer.complete
    assert peer.sent_at == [0, HOUR, 2 * HOUR]


# --- A response that ends itself


@pytest.mark.parametrize("ends_itself", [True, False])
@pytest.mark.parametrize("starts_late", [True, False])
async def test_a_response_that_ends_itself_is_left_to_do_so(ends_itself: bool, starts_late: bool) -> None:
    """
    What others send after they were stopped is dropped; as is a start, by which time we have answered.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        start = {**START, ENDS_ITSELF: ends_itself}
        if not starts_late:
            await send(start)
        try:
            await anyio.sleep(HOUR)
        finally:
            with anyio.CancelScope(shield=True):
                if starts_late:
                    await send(start)
                await send(PART)

    peer = Peer()
    await peer.run(RequestCancelationMiddleware(app, default_timeout=1))

    assert peer.status == (504 if starts_late else 200)
    assert (b"part" in peer.body) is (ends_itself and not starts_late)
    assert peer.complete is starts_late
