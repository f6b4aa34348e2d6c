"""The scripted peer: the habits of each server, and the rules that it watches over."""

from __future__ import annotations

import anyio
import pytest
from anyio import CancelScope, create_task_group, move_on_after, wait_all_tasks_blocked

from tests.asgi_peer import (
    ALL_HABITS,
    GUNICORN,
    HYPERCORN,
    HYPERCORN_H2,
    STRICT,
    UVICORN,
    Habits,
    Message,
    Peer,
)

START: Message = {"type": "http.response.start", "status": 200, "headers": [(b"X-A", b"1")]}
LAST: Message = {"type": "http.response.body", "body": b"done"}
PART: Message = {"type": "http.response.body", "body": b"part", "more_body": True}


async def blocks(peer: Peer) -> bool:
    """Say whether the peer's ``receive()`` would wait for ever."""
    with move_on_after(3600) as scope:
        await peer.receive()
    return scope.cancelled_caught


@pytest.mark.parametrize("habits", ALL_HABITS, ids=str)
async def test_a_body_arrives_in_order_and_a_response_is_recorded(habits: Habits) -> None:
    """
    Whatever the server's habits are, an ordinary request works.
    """
    peer = Peer(b"one", b"two", headers=[("X-Request", "yes")], habits=habits)

    async def app(scope: Message, receive: object, send: object) -> None:
        assert scope["method"] == "POST"
        assert scope["headers"] == [(b"x-request", b"yes")]
        assert await peer.receive() == {"type": "http.request", "body": b"one", "more_body": True}
        assert await peer.receive() == {"type": "http.request", "body": b"two", "more_body": False}
        await peer.send(START)
        assert not peer.complete
        await peer.send(LAST)

    await peer.run(app)

    assert (peer.status, peer.headers, peer.body) == (200, {"x-a": "1"}, b"done")
    assert peer.complete
    assert peer.over
    assert peer.returned


@pytest.mark.parametrize("habits", ALL_HABITS, ids=str)
async def test_a_waiting_receive_hears_of_the_disconnect(habits: Habits) -> None:
    """
    Nothing but the disconnect ends the wait for it.
    """
    peer = Peer(habits=habits)
    assert (await peer.receive())["type"] == "http.request"
    received: list[Message] = []

    async def receive() -> None:
        received.append(await peer.receive())

    async with create_task_group() as tasks:
        tasks.start_soon(receive)
        await wait_all_tasks_blocked()
        assert peer.receiving == 1
        assert not peer.told
        peer.disconnect()

    assert received == [{"type": "http.disconnect"}]
    assert peer.told
    assert await blocks(peer) != habits.repeats_disconnect


@pytest.mark.parametrize("habits", [UVICORN, HYPERCORN, GUNICORN], ids=str)
async def test_servers_differ_once_the_response_is_complete(habits: Habits) -> None:
    """
    uvicorn drops the body, Hypercorn does not, and gunicorn knows that nobody has left.
    """
    peer = Peer(b"unread", habits=habits)
    await peer.send(START)
    await peer.send(LAST)

    if habits is not UVICORN:
        assert (await peer.receive())["body"] == b"unread"
    if habits is GUNICORN:
        assert await blocks(peer)
    else:
        assert await peer.receive() == {"type": "http.disconnect"}


async def test_gunicorn_takes_a_cancelled_receive_for_a_disconnect() -> None:
    """
    The next call answers with a disconnect, although the client is still there.
    """
    peer = Peer(more=True, habits=GUNICORN, strict=False)

    assert await blocks(peer)

    assert await peer.receive() == {"type": "http.disconnect"}
    assert not peer.gone
    assert peer.violations == ["receive() called again after one was cancelled"]


async def test_two_receives_at_once_break_the_rules() -> None:
    """
    The second call fails, and the first is not disturbed.
    """
    peer = Peer(more=True)

    async with create_task_group() as tasks:
        tasks.start_soon(peer.receive)
        await wait_all_tasks_blocked()
        with pytest.raises(AssertionError, match="two calls"):
            await peer.receive()
        peer.feed(b"the rest")

    with pytest.raises(AssertionError, match="two calls"):
        peer.check()


async def test_a_retried_receive_breaks_the_rules_until_the_request_is_over() -> None:
    """
    Cancel and retry is what some servers cannot stand.
    """
    peer = Peer(more=True)
    assert await blocks(peer)

    with pytest.raises(AssertionError, match="called again"):
        await peer.receive()

    peer.disconnect()
    assert await peer.receive() == {"type": "http.disconnect"}


async def test_a_send_after_the_disconnect_was_received_breaks_the_rules() -> None:
    """
    It does so when the application knows; before, it cannot be blamed.
    """
    peer = Peer(more=True)

    async def app(scope: Message, receive: object, send: object) -> None:
        peer.disconnect()
        await peer.send(START)
        assert not peer.violations
        await peer.receive()
        await peer.send(PART)

    with pytest.raises(AssertionError, match="after the disconnect was received"):
        await peer.run(app)


async def test_servers_differ_in_sends_after_the_disconnect() -> None:
    """
    Most ignore them, some raise, and one hangs.
    """
    peers = {habits: Peer(habits=habits) for habits in ALL_HABITS}
    for peer in peers.values():
        peer.disconnect()

    await peers[UVICORN].send(START)
    with pytest.raises(OSError, match="left"):
        await peers[STRICT].send(START)
    with move_on_after(3600) as scope:
        await peers[HYPERCORN_H2].send(START)

    assert scope.cancelled_caught


@pytest.mark.parametrize("habits", [UVICORN, GUNICORN], ids=str)
async def test_a_stalled_send_waits_for_the_client(habits: Habits) -> None:
    """
    It goes on when the client reads again; on most servers also when the client leaves.
    """
    peer = Peer(habits=habits)
    await peer.send(START)
    peer.stall()

    async with create_task_group() as tasks:
        tasks.start_soon(peer.send, PART)
        await wait_all_tasks_blocked()
        assert peer.chunks == []
        peer.release()
        await peer.until(lambda: peer.chunks)
        peer.stall()
        tasks.start_soon(peer.send, PART)
        await wait_all_tasks_blocked()
        peer.disconnect()
        await wait_all_tasks_blocked()
        assert len(peer.chunks) == (2 if habits.frees_send else 1)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("messages", "complete"),
    [
        ([START, PART], False),
        ([START, {"type": "http.response.pathsend", "path": "/f"}], True),
        ([START, {"type": "http.response.zerocopysend", "file": 0, "more_body": True}], False),
        ([START, {"type": "http.response.zerocopysend", "file": 0}], True),
        ([{**START, "trailers": True}, LAST], False),
        ([{**START, "trailers": True}, {"type": "http.response.pathsend", "path": "/f"}], False),
        ([{**START, "trailers": True}, LAST, {"type": "http.response.trailers"}], True),
    ],
)
async def test_a_response_ends_with_its_last_message(messages: list[Message], complete: bool) -> None:
    """
    Which one is the last depends on trailers and on the way that the body is sent.
    """
    peer = Peer()

    for message in messages:
        await peer.send(message)

    assert peer.complete is complete


@pytest.mark.parametrize(
    "messages", [[START, LAST, LAST], [START, START], [LAST]], ids=["late", "twice", "early"]
)
async def test_messages_out_of_order_are_refused(messages: list[Message]) -> None:
    """
    As every server does.
    """
    peer = Peer()
    *accepted, refused = messages
    for message in accepted:
        await peer.send(message)

    with pytest.raises(RuntimeError, match=r"http\.response"):
        await peer.send(refused)

    assert peer.sent == accepted


async def test_an_upload_may_go_on_later() -> None:
    """
    A cancelled wait loses nothing.
    """
    peer = Peer(more=True, habits=HYPERCORN, strict=False)
    with CancelScope() as scope:
        scope.cancel()
        peer.feed(b"late", more=True)
        await peer.receive()

    assert (await peer.receive())["body"] == b"late"


async def test_a_websocket_has_messages_both_ways_and_a_close_code() -> None:
    """
    A WebSocket peer connects first, and says why it left.
    """
    peer = Peer("hello", b"\0", kind="websocket", habits=UVICORN)

    assert await peer.receive() == {"type": "websocket.connect"}
    assert not peer.accepted
    await peer.send({"type": "websocket.accept"})
    assert await peer.receive() == {"type": "websocket.receive", "text": "hello"}
    assert await peer.receive() == {"type": "websocket.receive", "bytes": b"\0"}
    await peer.send({"type": "websocket.send", "text": "hi"})
    await peer.send({"type": "websocket.send", "bytes": b"\1"})
    assert peer.closed is None
    peer.disconnect(4001, "bye")
    assert await peer.receive() == {"type": "websocket.disconnect", "code": 4001, "reason": "bye"}

    assert peer.accepted
    assert peer.messages == ["hi", b"\1"]
    assert await blocks(peer)
    with pytest.raises(OSError, match="left"):
        await peer.send({"type": "websocket.send", "text": "anyone?"})


async def test_a_websocket_may_be_closed_or_denied_by_the_application() -> None:
    """
    Both end it.
    """
    closed, denied = Peer(kind="websocket"), Peer(kind="websocket")

    await closed.send({"type": "websocket.close", "code": 1013, "reason": "later"})
    await denied.send({"type": "websocket.http.response.start", "status": 503, "headers": []})
    await denied.send({"type": "websocket.http.response.body", "body": b'{"a": 1}'})

    assert closed.closed == (1013, "later")
    assert closed.complete
    assert (denied.status, denied.json) == (503, {"a": 1})
    assert denied.complete


async def test_times_of_messages_are_on_the_loops_clock() -> None:
    """
    A test can tell when the response began.
    """
    peer = Peer()

    await anyio.sleep(3600)
    await peer.send(START)

    assert peer.sent_at == [3600]
