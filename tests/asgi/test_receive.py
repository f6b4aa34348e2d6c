"""The single reader: what the client sends, and that it leaves, in order and for all who ask."""

from __future__ import annotations

import anyio
import pytest
from anyio import CancelScope, create_task_group, wait_all_tasks_blocked

from hother.cancelable import CancelationReason
from hother.cancelable.asgi import Grace, RequestCancelationMiddleware, current_request_token
from hother.cancelable.asgi._receive import MESSAGE_COST
from hother.cancelable.asgi._types import ASGIApp, Message, Receive, Scope, Send
from tests.asgi_peer import ALL_HABITS, GUNICORN, UVICORN, Habits, Peer

HOUR = 3600.0
START: Message = {"type": "http.response.start", "status": 200, "headers": []}
LAST: Message = {"type": "http.response.body", "body": b"done"}
DISCONNECT: Message = {"type": "http.disconnect"}
KB = 1024


async def answer(send: Send) -> None:
    await send(START)
    await send(LAST)


async def read_body(receive: Receive) -> list[bytes]:
    """Return the parts of the body, as they come."""
    parts: list[bytes] = []
    message: Message = {"more_body": True}
    while message["more_body"]:
        message = await receive()
        assert message["type"] == "http.request"
        parts.append(message["body"])
    return parts


async def probe(receive: Receive) -> Message | None:
    """Ask as Starlette's ``is_disconnected()`` does: without waiting."""
    with CancelScope() as scope:
        scope.cancel()
        return await receive()
    return None


def ignoring(app: ASGIApp, read_ahead: int = 65_536) -> ASGIApp:
    """Wrap *app* so that it can look at what its client's leaving does."""
    return RequestCancelationMiddleware(app, on_disconnect=Grace(1e6), read_ahead=read_ahead)


# --- The body


@pytest.mark.parametrize("habits", ALL_HABITS, ids=str)
@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
async def test_a_body_arrives_in_the_parts_that_the_server_reads(habits: Habits, late: bool) -> None:
    """
    Whether the application reads at once, or works for an hour first.
    """
    bodies: list[list[bytes]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(HOUR if late else 0)
        bodies.append(await read_body(receive))
        await answer(send)

    peer = Peer(b"one", b"", b"two", b"three", habits=habits)
    await peer.run(RequestCancelationMiddleware(app))

    assert bodies == [[b"one", b"", b"two", b"three"]]
    assert peer.status == 200


async def test_no_part_of_a_slow_upload_is_lost_to_slow_work() -> None:
    """
    An hour of work for each part, while the client sends one each half hour.
    """
    bodies: list[list[bytes]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        parts: list[bytes] = []
        while len(parts) < 5:
            parts.append((await receive())["body"])
            await anyio.sleep(HOUR)
        bodies.append(parts)
        await answer(send)

    peer = Peer(more=True)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app))
        for number in range(5):
            await anyio.sleep(HOUR / 2)
            peer.feed(b"%d" % number, more=number < 4)

    assert bodies == [[b"0", b"1", b"2", b"3", b"4"]]
    assert peer.status == 200


@pytest.mark.parametrize("read_ahead", [0, 1, 2 * KB, 10 * KB])
async def test_what_is_read_ahead_is_bounded_in_bytes(read_ahead: int) -> None:
    """
    At most one message more than allowed waits for the application.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(HOUR)

    peer = Peer(*(bytes(KB) for _ in range(50)))
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app, read_ahead=read_ahead))
        await wait_all_tasks_blocked()

        assert peer.received == read_ahead // (KB + MESSAGE_COST) + 1

        tasks.cancel_scope.cancel()


async def test_empty_messages_count_too() -> None:
    """
    A client that sends a flood of empty messages does not fill the memory.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(HOUR)

    peer = Peer(*(b"" for _ in range(1000)))
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app, read_ahead=100 * MESSAGE_COST))
        await wait_all_tasks_blocked()

        assert peer.received == 101

        tasks.cancel_scope.cancel()


async def test_room_in_the_buffer_is_used() -> None:
    """
    Reading goes on as soon as the application takes a message out.
    """
    received: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(3):
            await wait_all_tasks_blocked()
            received.append(peer.received)
            await receive()
        await answer(send)

    peer = Peer(*(bytes(KB) for _ in range(50)), habits=GUNICORN)
    await peer.run(RequestCancelationMiddleware(app, read_ahead=2 * KB))

    assert received == [2, 3, 4]


@pytest.mark.parametrize("expect", ["100-continue", "100-Continue"])
async def test_an_upload_that_nobody_asks_for_is_not_read(expect: str) -> None:
    """
    With ``Expect: 100-continue`` reading is what makes the client start its upload.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(HOUR)
        assert peer.receiving == peer.received == 0
        await send({**START, "status": 417})
        await send(LAST)

    peer = Peer(b"unwanted", headers=[("Expect", expect)])
    await peer.run(RequestCancelationMiddleware(app))

    assert (peer.status, peer.receiving, peer.received) == (417, 0, 0)


async def test_an_upload_that_is_asked_for_is_read_ahead() -> None:
    """
    From the first question on, the request is like all others, disconnects included.
    """
    ended: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            assert (await receive())["body"] == b"one"
            await anyio.sleep(HOUR)
        finally:
            ended.append("cancelled" if anyio.current_time() < HOUR else "too late")

    peer = Peer(b"one", more=True, headers=[("Expect", "100-continue")])
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app))
        await peer.until(lambda: peer.received == 1 and peer.receiving)
        peer.disconnect()

    assert ended == ["cancelled"]


# --- The disconnect


@pytest.mark.parametrize("habits", ALL_HABITS, ids=str)
async def test_a_disconnect_is_latched_for_every_later_receive(habits: Habits) -> None:
    """
    Also where the server says it once and then falls silent.
    """
    answers: list[Message | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        answers.extend([await receive(), await receive(), await probe(receive), await receive()])

    peer = Peer(habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, ignoring(app))
        await wait_all_tasks_blocked()
        peer.disconnect()

    assert answers == [DISCONNECT] * 4


@pytest.mark.parametrize("habits", ALL_HABITS, ids=str)
async def test_all_who_wait_hear_of_the_disconnect(habits: Habits) -> None:
    """
    Several listeners inside do not become several readers outside, which would starve each other.
    """
    answers: list[Message] = []

    async def listen(receive: Receive) -> None:
        answers.append(await receive())

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        async with create_task_group() as listeners:
            for _ in range(3):
                listeners.start_soon(listen, receive)

    peer = Peer(habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, ignoring(app))
        await wait_all_tasks_blocked()
        assert peer.receiving == 1
        peer.disconnect()

    assert answers == [DISCONNECT] * 3


async def test_what_was_read_before_the_disconnect_comes_before_it() -> None:
    """
    The application gets the parts of the body that made it, and then hears that there are no more.
    """
    messages: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(HOUR)
        messages.extend([await receive() for _ in range(3)])

    peer = Peer(b"one", b"two", more=True)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, ignoring(app))
        await wait_all_tasks_blocked()
        peer.disconnect()

    assert [message.get("body") for message in messages] == [b"one", b"two", None]
    assert messages[-1] == DISCONNECT


async def test_a_full_buffer_hides_the_disconnect_until_there_is_room() -> None:
    """
    It stands in the line behind; reading on finds it.
    """
    seen: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        token = current_request_token()
        assert token is not None
        await anyio.sleep(HOUR)
        seen.append(token.is_cancelled)
        await receive()
        await anyio.sleep(1)
        seen.append(token.is_cancelled)

    peer = Peer(bytes(KB), more=True, habits=GUNICORN)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, ignoring(app, read_ahead=KB))
        await wait_all_tasks_blocked()
        peer.disconnect()

    assert seen == [False, True]


@pytest.mark.parametrize("read_ahead", [0, 1, KB])
async def test_behind_a_complete_body_a_disconnect_is_always_seen(read_ahead: int) -> None:
    """
    After the last part only a disconnect can come, which takes no room: it is looked for in any case.
    """
    ended_at: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await read_body(receive)
        try:
            await anyio.sleep(HOUR)
        finally:
            ended_at.append(anyio.current_time())

    peer = Peer(bytes(10 * KB))
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app, read_ahead=read_ahead))
        await anyio.sleep(1)
        peer.disconnect()

    assert ended_at == [1]


async def test_an_unread_but_complete_body_does_not_hide_the_disconnect() -> None:
    """
    However long the body is: the server has read all of it.
    """
    ended_at: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await anyio.sleep(HOUR)
        finally:
            ended_at.append(anyio.current_time())

    peer = Peer(bytes(100 * KB))
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app))
        await anyio.sleep(1)
        peer.disconnect()

    assert ended_at == [1]


# --- Being asked without being waited for


@pytest.mark.parametrize("habits", ALL_HABITS, ids=str)
async def test_a_probe_takes_no_part_of_the_body(habits: Habits) -> None:
    """
    A question from a cancelled scope is about the disconnect; its answer would be thrown away.
    """
    answers: list[Message | None] = []
    bodies: list[list[bytes]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        answers.append(await probe(receive))
        await wait_all_tasks_blocked()
        answers.append(await probe(receive))
        bodies.append(await read_body(receive))
        answers.append(await probe(receive))
        await answer(send)

    peer = Peer(b"one", b"two", habits=habits)
    await peer.run(RequestCancelationMiddleware(app))

    assert answers == [None, None, None]
    assert bodies == [[b"one", b"two"]]


@pytest.mark.parametrize("habits", ALL_HABITS, ids=str)
async def test_a_probe_sees_the_disconnect_behind_an_unread_body(habits: Habits) -> None:
    """
    It is asked about now, not about what the application has read.
    """
    answers: list[Message | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(HOUR)
        answers.append(await probe(receive))
        answers.append(await receive())

    peer = Peer(b"unread", habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, ignoring(app))
        await wait_all_tasks_blocked()
        peer.disconnect()

    assert answers == [DISCONNECT, {"type": "http.request", "body": b"unread", "more_body": False}]


@pytest.mark.parametrize("habits", ALL_HABITS, ids=str)
async def test_giving_up_a_wait_does_not_give_up_the_servers_receive(habits: Habits) -> None:
    """
    gunicorn would take a cancelled ``receive()`` for a disconnect, and others might lose a message.
    """
    bodies: list[list[bytes]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(3):
            with anyio.move_on_after(1) as patience:
                await receive()
            assert patience.cancelled_caught
            assert peer.receiving == 1
        peer.feed(b"late")
        bodies.append(await read_body(receive))
        await answer(send)

    peer = Peer(more=True, habits=habits)
    await peer.run(RequestCancelationMiddleware(app))

    assert bodies == [[b"late"]]
    assert peer.status == 200


async def test_a_message_that_arrives_as_the_wait_ends_is_kept() -> None:
    """
    Cancelled and answered in the same moment: the message stays for the next who asks.
    """
    bodies: list[list[bytes]] = []

    async def take(receive: Receive) -> None:
        bodies.append([(await receive())["body"]])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with create_task_group() as listeners:
            listeners.start_soon(take, receive)
            await wait_all_tasks_blocked()
            peer.feed(b"body")
            listeners.cancel_scope.cancel()
        bodies.append(await read_body(receive))
        await answer(send)

    peer = Peer(more=True)
    await peer.run(RequestCancelationMiddleware(app))

    assert bodies == [[b"body"]]


# --- What else may happen


async def test_the_servers_error_is_raised_where_the_application_asks() -> None:
    """
    At each call; and nothing is cancelled, since nobody has left.
    """
    errors: list[str] = []

    async def broken() -> Message:
        raise ConnectionResetError("no route")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(2):
            with pytest.raises(ConnectionResetError) as caught:
                await receive()
            errors.append(str(caught.value))
        assert not scope["cancelation_token"].is_cancelled
        await answer(send)

    peer = Peer()
    await RequestCancelationMiddleware(app)(peer.scope, broken, peer.send)

    assert errors == ["no route"] * 2
    assert peer.status == 200


async def test_messages_pass_as_they_are() -> None:
    """
    Also those that are not in today's specification.
    """
    special: Message = {"type": "http.special", "data": [1]}
    received: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        received.append(await receive())
        await answer(send)

    peer = Peer(more=True)
    peer.push(special)
    await peer.run(RequestCancelationMiddleware(app))

    assert received[0] is special


@pytest.mark.parametrize("code", [1005, 1006, 4001])
async def test_a_websocket_hears_the_code_that_the_server_gives(code: int) -> None:
    """
    The token says no more than that the client has left, whatever the code is.
    """
    messages: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        messages.extend([await receive(), await receive()])
        await send({"type": "websocket.accept"})
        messages.extend([await receive(), await receive()])
        assert scope["cancelation_token"].cancelation.reason is CancelationReason.DISCONNECT

    peer = Peer("hello", kind="websocket", habits=UVICORN)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app))
        await peer.until(lambda: peer.accepted)
        await wait_all_tasks_blocked()
        peer.disconnect(code, "bye")

    farewell = {"type": "websocket.disconnect", "code": code, "reason": "bye"}
    assert messages == [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "hello"},
        farewell,
        farewell,
    ]
