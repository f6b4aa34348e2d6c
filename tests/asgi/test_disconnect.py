"""The client leaves: when that ends the handler, when it does not, and how."""

from __future__ import annotations

from typing import Literal

import anyio
import pytest
from anyio import create_task_group, wait_all_tasks_blocked

from hother.cancelable import CancelationReason, CancelationToken, DisconnectCancelation
from hother.cancelable.asgi import TOKEN_KEY, RequestCancelationMiddleware
from hother.cancelable.asgi._types import Message, Receive, Scope, Send
from tests.asgi_peer import ALL_HABITS, GUNICORN, HYPERCORN_H2, Habits, Peer

HOUR = 3600.0
START: Message = {"type": "http.response.start", "status": 200, "headers": []}
PART: Message = {"type": "http.response.body", "body": b"part", "more_body": True}
LAST: Message = {"type": "http.response.body", "body": b"last"}

every_server = pytest.mark.parametrize("habits", ALL_HABITS, ids=str)


class Handler:
    """An application that reads a body in two parts, works, answers in two parts, and works on."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.token = CancelationToken()
        self.ended_at = -1.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.token = scope[TOKEN_KEY]
        try:
            await self.step("first")
            await receive()
            await self.step("body")
            await receive()
            await self.step("read")
            await send(START)
            await self.step("started")
            await send(PART)
            await self.step("between")
            await send(LAST)
            await self.step("background")
            self.steps.append("end")
        finally:
            self.ended_at = anyio.current_time()

    async def step(self, name: str) -> None:
        self.steps.append(name)
        await anyio.sleep(HOUR)


# --- When


@every_server
@pytest.mark.parametrize("number", range(5), ids=["first", "body", "read", "started", "between"])
async def test_before_its_response_is_complete_a_client_that_leaves_ends_its_handler(
    habits: Habits, number: int
) -> None:
    """
    At that very moment, wherever the handler is; nothing more is sent.
    """
    handler = Handler()
    peer = Peer(b"one", b"two", habits=habits)
    sent: list[Message] = []
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(handler))
        await anyio.sleep((number + 0.5) * HOUR)
        sent += peer.sent
        peer.disconnect()

    assert len(handler.steps) == number + 1
    assert handler.ended_at == (number + 0.5) * HOUR
    assert peer.sent == sent
    assert handler.token.cancelation is not None
    assert handler.token.cancelation.reason is CancelationReason.DISCONNECT


@every_server
async def test_a_client_that_leaves_during_its_upload_ends_its_handler(habits: Habits) -> None:
    """
    The handler waits for the rest of the body, and is cancelled there.
    """
    handler = Handler()
    peer = Peer(b"one", more=True, habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(handler))
        await anyio.sleep(2.5 * HOUR)
        peer.disconnect()

    assert handler.steps == ["first", "body"]
    assert handler.ended_at == 2.5 * HOUR


@every_server
async def test_after_its_response_is_complete_a_client_may_leave(habits: Habits) -> None:
    """
    Background tasks run to their end, and the token stays as it was.
    """
    handler = Handler()
    peer = Peer(b"one", b"two", habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(handler))
        await peer.until(lambda: peer.complete)
        await anyio.sleep(1)
        peer.disconnect()

    assert handler.steps[-1] == "end"
    assert not handler.token.is_cancelled


@every_server
async def test_a_client_that_stays_is_not_taken_for_one_that_left(habits: Habits) -> None:
    """
    Servers that report the end of the response as a disconnect change nothing.
    """
    handler = Handler()
    peer = Peer(b"one", b"two", habits=habits)
    await peer.run(RequestCancelationMiddleware(handler))

    assert handler.steps == ["first", "body", "read", "started", "between", "background", "end"]
    assert not handler.token.is_cancelled
    assert peer.body == b"partlast"


@every_server
async def test_a_client_that_left_before_its_request_was_served_costs_nothing(habits: Habits) -> None:
    """
    The handler is cancelled at its first checkpoint.
    """
    handler = Handler()
    peer = Peer(more=True, habits=habits)
    peer.disconnect()
    await peer.run(RequestCancelationMiddleware(handler))

    assert anyio.current_time() == 0
    assert peer.sent == []
    assert peer.scope[TOKEN_KEY].is_cancelled


@every_server
async def test_a_client_that_leaves_while_the_last_message_is_sent_has_its_response(habits: Habits) -> None:
    """
    The server has all of it, so what comes after it runs.
    """
    steps: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        peer.stall()
        await send(LAST)
        await anyio.sleep(HOUR)
        steps.append("background")

    peer = Peer(habits=habits)
    with anyio.fail_after(2 * HOUR):
        async with create_task_group() as tasks:
            tasks.start_soon(peer.run, RequestCancelationMiddleware(app))
            await wait_all_tasks_blocked()
            peer.disconnect()

    assert steps == ["background"]
    assert not peer.scope[TOKEN_KEY].is_cancelled


async def test_a_server_that_hangs_in_the_last_send_does_not_keep_the_request() -> None:
    """
    Hypercorn waits for ever for an HTTP/2 connection that is gone.
    """
    steps: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        peer.disconnect()
        await send(LAST)
        steps.append("background")

    peer = Peer(habits=HYPERCORN_H2)
    with anyio.fail_after(HOUR):
        await peer.run(RequestCancelationMiddleware(app))

    assert steps == ["background"]


# --- How


@every_server
async def test_the_token_says_that_it_was_the_client(habits: Habits) -> None:
    """
    Code that polls the token, in a thread for one, raises an error of that name.
    """
    reasons: list[CancelationReason] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        token = scope[TOKEN_KEY]
        token.add_callback(lambda cancelation: reasons.append(cancelation.reason))
        try:
            await anyio.sleep(HOUR)
        finally:
            with pytest.raises(DisconnectCancelation, match="the client disconnected"):
                token.check()

    peer = Peer(habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app))
        await wait_all_tasks_blocked()
        peer.disconnect()

    assert reasons == [CancelationReason.DISCONNECT]


async def test_a_handler_may_clean_up_in_a_shield() -> None:
    """
    The request ends when the handler does.
    """
    cleaned: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await anyio.sleep(HOUR)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(2)
                cleaned.append(anyio.current_time())

    peer = Peer()
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app))
        await anyio.sleep(1)
        peer.disconnect()

    assert cleaned == [3]


async def test_a_handler_that_is_shielded_all_over_is_waited_for() -> None:
    """
    Nothing can interrupt it; it hears of the disconnect from its token.
    """
    ended_at: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with anyio.CancelScope(shield=True):
            await scope[TOKEN_KEY].wait()
            await anyio.sleep(2)
            ended_at.append(anyio.current_time())
            await send(START)

    peer = Peer()
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app))
        await anyio.sleep(1)
        peer.disconnect()

    assert ended_at == [3]
    assert peer.sent == []


async def test_a_task_group_of_the_handler_is_cancelled_as_a_whole() -> None:
    """
    Not the handler alone: all of its tasks.
    """
    ended: list[float] = []

    async def work() -> None:
        try:
            await anyio.sleep(HOUR)
        finally:
            ended.append(anyio.current_time())

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with create_task_group() as workers:
            for _ in range(3):
                workers.start_soon(work)

    peer = Peer()
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app))
        await anyio.sleep(1)
        peer.disconnect()

    assert ended == [1, 1, 1]


async def test_only_the_request_of_the_client_that_left_ends() -> None:
    """
    Others on the same connection (HTTP/2) or server are not disturbed.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(HOUR)
        await send(START)
        await send(LAST)

    peers = [Peer(path=f"/{number}") for number in range(5)]
    middleware = RequestCancelationMiddleware(app)
    async with create_task_group() as tasks:
        for peer in peers:
            tasks.start_soon(peer.run, middleware)
        await anyio.sleep(1)
        peers[2].disconnect()

    assert [peer.status for peer in peers] == [200, 200, None, 200, 200]


# --- on_disconnect="ignore"


@every_server
async def test_ignoring_the_disconnect_cancels_the_token_only(habits: Habits) -> None:
    """
    What is tied to the token stops; the handler runs to its end.
    """
    handler = Handler()
    peer = Peer(b"one", b"two", habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(handler, on_disconnect="ignore"))
        await anyio.sleep(1)
        peer.disconnect()

    assert handler.steps[-1] == "end"
    assert handler.token.cancelation is not None
    assert peer.sent == []


async def test_deadlines_hold_after_an_ignored_disconnect() -> None:
    """
    A handler that may outlive its client may not outlive its time.
    """
    handler = Handler()
    peer = Peer(b"one", b"two")
    async with create_task_group() as tasks:
        tasks.start_soon(
            peer.run,
            RequestCancelationMiddleware(handler, on_disconnect="ignore", default_timeout=4.5 * HOUR),
        )
        await anyio.sleep(1)
        peer.disconnect()

    assert handler.ended_at == 4.5 * HOUR
    assert handler.steps[-1] == "between"


async def test_other_cancelations_hold_with_ignored_disconnects() -> None:
    """
    Only the client's leaving is ignored.
    """
    handler = Handler()
    peer = Peer(b"one", b"two")
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(handler, on_disconnect="ignore"))
        await anyio.sleep(1)
        peer.scope[TOKEN_KEY].cancel()

    assert handler.ended_at == 1
    assert peer.status == 503


@every_server
async def test_after_an_ignored_disconnect_background_tasks_have_no_deadline(habits: Habits) -> None:
    """
    A response that was dropped is complete all the same, once its last message was sent.
    """
    ended_at: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(2)
        await send(START)
        await send(LAST)
        try:
            await anyio.sleep(HOUR)
        finally:
            ended_at.append(anyio.current_time())

    peer = Peer(habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(
            peer.run, RequestCancelationMiddleware(app, on_disconnect="ignore", default_timeout=10)
        )
        await anyio.sleep(1)
        peer.disconnect()

    assert ended_at == [HOUR + 2]


# --- gunicorn


async def test_gunicorn_gets_no_false_disconnect() -> None:
    """
    It takes a cancelled ``receive()`` for one, so none is cancelled while the request lasts.
    """
    answers: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for _ in range(3):
            with anyio.move_on_after(1):
                await receive()
            answers.append(scope[TOKEN_KEY].is_cancelled)
        await send(START)
        await send(LAST)

    peer = Peer(habits=GUNICORN)
    await peer.run(RequestCancelationMiddleware(app))

    assert answers == [False] * 3
    assert peer.complete


# --- WebSockets


@every_server
async def test_a_websocket_handler_that_only_sends_is_cancelled(habits: Habits) -> None:
    """
    Without a reader beside it, it would never learn that nobody listens.
    """
    ended_at: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            while True:
                await send({"type": "websocket.send", "text": "tick"})
                await anyio.sleep(1)
        finally:
            ended_at.append(anyio.current_time())

    peer = Peer(kind="websocket", habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app))
        await anyio.sleep(3.5)
        peer.disconnect()

    assert ended_at == [3.5]
    assert peer.messages == ["tick"] * 4
    assert peer.closed is None


@every_server
async def test_a_websocket_handler_that_waits_for_a_message_is_told(habits: Habits) -> None:
    """
    It ends in its own way, with awaits and without a cancelation in them.
    """
    steps: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        message = await receive()
        steps.append(message["type"])
        await anyio.sleep(5)
        await send({"type": "websocket.close", "code": 1000})
        steps.append("saved")

    peer = Peer(kind="websocket", habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app))
        await wait_all_tasks_blocked()
        peer.disconnect()

    assert steps == ["websocket.disconnect", "saved"]
    assert peer.closed is None
    assert peer.scope[TOKEN_KEY].is_cancelled


@pytest.mark.parametrize("grace", [0, 10, None])
async def test_a_websocket_handler_that_was_told_may_take_so_long_and_no_longer(grace: float | None) -> None:
    """
    One that goes on as if nothing had happened is cancelled, unless it is given all the time it wants.
    """
    ended_at: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            await receive()
            await anyio.sleep(HOUR)
        finally:
            ended_at.append(anyio.current_time())

    peer = Peer(kind="websocket")
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app, websocket_grace=grace))
        await anyio.sleep(1)
        peer.disconnect()

    assert ended_at == [1 + (HOUR if grace is None else grace)]


@every_server
async def test_a_websocket_handler_that_was_told_and_still_sends_is_cancelled(habits: Habits) -> None:
    """
    It did not understand.
    """
    ended_at: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        try:
            await anyio.sleep(2)
            while True:
                await send({"type": "websocket.send", "text": "anyone?"})
        finally:
            ended_at.append(anyio.current_time())

    peer = Peer(kind="websocket", habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app))
        await anyio.sleep(1)
        peer.disconnect()

    assert ended_at == [3]
    assert peer.messages == []


@pytest.mark.parametrize("waits", [True, False], ids=["receives", "works"])
async def test_a_websocket_handler_may_ignore_the_disconnect(waits: bool) -> None:
    """
    If the middleware is told so, nothing is cancelled but the token, however long it takes.
    """
    steps: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if waits:
            await receive()
        await anyio.sleep(HOUR)
        await send({"type": "websocket.send", "text": "dropped"})
        await anyio.sleep(HOUR)
        steps.append("end")

    peer = Peer(kind="websocket")
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app, on_disconnect="ignore"))
        await anyio.sleep(1)
        peer.disconnect()

    assert steps == ["end"]
    assert peer.messages == []
    assert peer.scope[TOKEN_KEY].is_cancelled


@every_server
async def test_a_websocket_that_the_application_closed_is_not_disconnected(habits: Habits) -> None:
    """
    Work after the close runs on, whatever the server reports then.
    """
    steps: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1000})
        await anyio.sleep(HOUR)
        steps.append("saved")

    peer = Peer(kind="websocket", habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app))
        await anyio.sleep(1)
        peer.disconnect(1000)

    assert steps == ["saved"]
    assert not peer.scope[TOKEN_KEY].is_cancelled


# --- Every moment


Kind = Literal["http", "websocket"]


async def converse(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that does a bit of everything, with a checkpoint between all of it."""
    is_http = scope["type"] == "http"
    async with create_task_group() as workers:
        workers.start_soon(anyio.sleep, 0)
        for _ in range(3):
            message = await receive()
            if message["type"].endswith("disconnect"):
                return
            await anyio.lowlevel.checkpoint()
    await send(START if is_http else {"type": "websocket.accept"})
    for _ in range(3):
        await anyio.lowlevel.checkpoint()
        await send(PART if is_http else {"type": "websocket.send", "text": "part"})
    await send(LAST if is_http else {"type": "websocket.close", "code": 1000})
    for _ in range(3):  # however Trio mixes the tasks, the client can leave between two of them
        await anyio.lowlevel.checkpoint()


def conversation(kind: Kind, habits: Habits) -> Peer:
    parts = (b"1", b"2", b"3") if kind == "http" else (b"1", b"2")
    return Peer(*parts, kind=kind, habits=habits)


@pytest.mark.parametrize("kind", ["http", "websocket"])
@every_server
async def test_a_client_may_leave_at_any_step(habits: Habits, kind: Kind) -> None:
    """
    One ``receive()`` at a time, no ``send()`` after the disconnect, an end, a token that tells the truth.
    """
    step = 0
    outcomes: set[str] = set()
    while "stayed" not in outcomes:
        outcomes.add(await leave_at(step, conversation(kind, habits)))
        step += 1

    assert outcomes == {"left", "answered", "stayed"}


async def leave_at(step: int, peer: Peer) -> str:
    """Play the client that leaves at a step of the event loop, and check what must hold in any case."""
    errors: list[OSError] = []
    stayed = False

    async def serve() -> None:
        try:
            await peer.run(RequestCancelationMiddleware(converse))
        except OSError as error:  # of the server's send(), which was faster than its receive()
            errors.append(error)

    with anyio.fail_after(HOUR):
        async with create_task_group() as tasks:
            tasks.start_soon(serve)
            for _ in range(step):
                await anyio.lowlevel.checkpoint()
            stayed = peer.returned
            peer.disconnect()

    token = peer.scope[TOKEN_KEY]
    assert peer.receiving == 0
    hung = peer.habits.late_send == "hangs" and peer.status is not None  # in the last send
    assert token.is_cancelled or peer.complete or errors or hung
    assert not (token.is_cancelled and peer.complete)
    assert token.statistics().callbacks == 0
    return "stayed" if stayed else "answered" if peer.complete else "left"
