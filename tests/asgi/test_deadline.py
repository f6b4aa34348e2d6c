"""The deadline of a request: a problem document at once, or a response that is visibly cut short."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable

import anyio
import pytest
from anyio import create_task_group, to_thread
from anyio.lowlevel import checkpoint

from hother.cancelable import Cancelable, CancelationReason, CancelationToken, TimeoutCancelation
from hother.cancelable.asgi import PROBLEM_JSON, TOKEN_KEY, RequestCancelationMiddleware
from hother.cancelable.asgi._types import Message, Receive, Scope, Send
from tests.asgi_peer import ALL_HABITS, Habits, Peer

HOUR = 3600.0
START: Message = {"type": "http.response.start", "status": 200, "headers": []}
PART: Message = {"type": "http.response.body", "body": b"part", "more_body": True}
LAST: Message = {"type": "http.response.body", "body": b"last"}

every_server = pytest.mark.parametrize("habits", ALL_HABITS, ids=str)


async def wait_for_ever(scope: Scope, receive: Receive, send: Send) -> None:
    await anyio.sleep_forever()


@every_server
async def test_a_late_handler_is_answered_for(habits: Habits) -> None:
    """
    At the deadline, with a problem document that says so.
    """
    peer = Peer(habits=habits)
    await peer.run(RequestCancelationMiddleware(wait_for_ever, default_timeout=30))

    assert peer.sent_at == [30, 30]
    assert (peer.status, peer.headers["content-type"]) == (504, PROBLEM_JSON)
    assert peer.json == {
        "type": "about:blank",
        "title": "Gateway Timeout",
        "status": 504,
        "detail": "timed out after 30 seconds",
        "reason": "timeout",
    }
    assert peer.complete


async def test_a_handler_that_is_fast_enough_is_not_disturbed() -> None:
    """
    Its deadline goes with it.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(29)
        await send(START)
        await send(LAST)

    peer = Peer()
    await peer.run(RequestCancelationMiddleware(app, default_timeout=30))

    assert anyio.current_time() == 29
    assert peer.status == 200
    assert not peer.scope[TOKEN_KEY].is_cancelled


async def test_without_a_timeout_a_handler_takes_as_long_as_it_takes() -> None:
    """
    There is no hidden limit.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(1000 * HOUR)
        await send(START)
        await send(LAST)

    peer = Peer()
    await peer.run(RequestCancelationMiddleware(app))

    assert peer.status == 200


async def test_no_time_at_all_is_a_deadline_too() -> None:
    """
    Zero does not mean for ever.
    """
    peer = Peer()
    await peer.run(RequestCancelationMiddleware(wait_for_ever, default_timeout=0))

    assert anyio.current_time() == 0
    assert peer.status == 504


async def test_the_deadline_counts_from_the_start_of_the_request() -> None:
    """
    A slow upload is part of it.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["more_body"]:
            pass

    peer = Peer(more=True)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app, default_timeout=30))
        for _ in range(4):
            await anyio.sleep(7)
            peer.feed(b"slow", more=True)

    assert peer.sent_at == [30, 30]
    assert peer.status == 504


@every_server
async def test_a_response_that_has_started_is_cut_short(habits: Habits) -> None:
    """
    No second start, no last message: its client can see that something is missing.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        while True:
            await send(PART)
            await anyio.sleep(10)

    peer = Peer(habits=habits)
    await peer.run(RequestCancelationMiddleware(app, default_timeout=25))

    assert peer.sent == [START, PART, PART, PART]
    assert not peer.complete
    assert anyio.current_time() == 25


async def test_a_background_task_has_no_deadline() -> None:
    """
    The response is complete; nobody waits any more.
    """
    done: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        await send(LAST)
        await anyio.sleep(HOUR)
        done.append(anyio.current_time())

    peer = Peer()
    await peer.run(RequestCancelationMiddleware(app, default_timeout=30))

    assert done == [HOUR]
    assert not peer.scope[TOKEN_KEY].is_cancelled


async def test_a_shielded_handler_does_not_keep_its_client_waiting() -> None:
    """
    The client is answered at the deadline; the handler may end what it must.
    """
    done: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(HOUR)
            done.append(anyio.current_time())
        await send(START)

    peer = Peer()
    await peer.run(RequestCancelationMiddleware(app, default_timeout=30))

    assert peer.sent_at == [30, 30]
    assert peer.status == 504
    assert done == [HOUR]


async def test_a_handler_that_cleans_up_slowly_does_not_keep_its_client_waiting() -> None:
    """
    Nor does its cleanup get to answer.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(HOUR)
                await send(START)
                await send(LAST)

    peer = Peer()
    await peer.run(RequestCancelationMiddleware(app, default_timeout=30))

    assert peer.sent_at == [30, 30]
    assert peer.status == 504
    assert anyio.current_time() == HOUR + 30


@pytest.mark.real_time
async def test_a_busy_thread_does_not_keep_its_client_waiting() -> None:
    """
    A ``def`` handler cannot be interrupted, but its client is answered at the deadline.
    """
    go_on = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await to_thread.run_sync(go_on.wait, 5)
        await send(START)
        await send(LAST)

    peer = Peer()
    with anyio.fail_after(5):
        async with create_task_group() as tasks:
            tasks.start_soon(peer.run, RequestCancelationMiddleware(app, default_timeout=0.05))
            await peer.until(lambda: peer.complete)
            assert not peer.returned
            go_on.set()

    assert peer.status == 504
    assert len(peer.sent) == 2


@pytest.mark.real_time
@pytest.mark.parametrize(
    "waits_before", ["", "turn", "future", "future turn", "future future", "future thread"]
)
async def test_a_thread_can_ask_whether_its_time_is_up(waits_before: str) -> None:
    """
    With the token, or with AnyIO's own means; whatever the application has waited for before.
    """
    errors: list[BaseException] = []
    waits: dict[str, Callable[[], Awaitable[object]]] = {
        "turn": checkpoint,
        "future": lambda: anyio.sleep(0.001),
        "thread": lambda: to_thread.run_sync(threading.Event().is_set),
    }

    def work(token: CancelationToken) -> None:
        try:
            for _ in range(5000):
                anyio.from_thread.check_cancelled()
                threading.Event().wait(0.001)
        except BaseException:
            with pytest.raises(TimeoutCancelation) as caught:
                token.check()
            errors.append(caught.value)
            raise

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for wait in waits_before.split():
            await waits[wait]()
        await to_thread.run_sync(work, scope[TOKEN_KEY])

    peer = Peer()
    with anyio.fail_after(5):
        await peer.run(RequestCancelationMiddleware(app, default_timeout=0.05))

    assert peer.status == 504
    assert len(errors) == 1


async def test_the_token_tells_operations_that_the_deadline_passed() -> None:
    """
    An operation of the handler that is tied to the token ends for the same reason.
    """
    reasons: list[CancelationReason | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        operation = Cancelable.with_token(scope[TOKEN_KEY])
        try:
            async with operation:
                await anyio.sleep_forever()
        finally:
            assert operation.cancelation is not None
            reasons.append(operation.cancelation.reason)

    peer = Peer()
    await peer.run(RequestCancelationMiddleware(app, default_timeout=30))

    assert reasons == [CancelationReason.TIMEOUT]
    assert peer.status == 504


async def test_an_earlier_deadline_of_the_handlers_own_is_its_own_affair() -> None:
    """
    What the handler catches, it may answer.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(TimeoutCancelation):
            async with Cancelable.with_timeout(10):
                await anyio.sleep_forever()
        await send({**START, "status": 202})
        await send(LAST)

    peer = Peer()
    await peer.run(RequestCancelationMiddleware(app, default_timeout=30))

    assert peer.status == 202
    assert anyio.current_time() == 10


async def test_a_client_that_does_not_read_its_outcome_is_not_waited_for_for_ever() -> None:
    """
    After the time for answers, the request ends without.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        peer.stall()
        await anyio.sleep_forever()

    peer = Peer()
    await peer.run(RequestCancelationMiddleware(app, default_timeout=30, answer_timeout=2))

    assert anyio.current_time() == 32
    assert peer.sent == []


@every_server
async def test_a_client_that_leaves_while_it_is_answered_ends_the_request(habits: Habits) -> None:
    """
    Quietly, whatever the server makes of the message that was under way.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        peer.stall()
        await anyio.sleep_forever()

    peer = Peer(habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app, default_timeout=30, answer_timeout=2))
        await anyio.sleep(31)
        peer.disconnect()

    assert anyio.current_time() <= 32
    assert peer.scope[TOKEN_KEY].cancelation.reason is CancelationReason.TIMEOUT


async def test_a_server_that_fails_to_send_the_outcome_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    There is no application any more that could handle it; and the request ends.
    """
    reported: list[BaseException] = []
    monkeypatch.setattr("sys.excepthook", lambda *args: reported.append(args[1]))

    async def refuse(message: Message) -> None:
        raise RuntimeError("no")

    peer = Peer()
    await RequestCancelationMiddleware(wait_for_ever, default_timeout=30)(peer.scope, peer.receive, refuse)

    assert [str(error) for error in reported] == ["no"]


async def test_a_server_whose_client_left_unnoticed_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An ``OSError`` is how such servers say so.
    """
    reported: list[BaseException] = []
    monkeypatch.setattr("sys.excepthook", lambda *args: reported.append(args[1]))

    async def refuse(message: Message) -> None:
        raise BrokenPipeError("gone")

    peer = Peer()
    await RequestCancelationMiddleware(wait_for_ever, default_timeout=30)(peer.scope, peer.receive, refuse)

    assert reported == []


# --- WebSockets


async def test_a_websocket_has_no_deadline_of_a_request() -> None:
    """
    It may be open for days.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await anyio.sleep(100 * HOUR)
        await send({"type": "websocket.close", "code": 1000})

    peer = Peer(kind="websocket")
    await peer.run(RequestCancelationMiddleware(app, default_timeout=30))

    assert peer.closed == (1000, "")


@every_server
@pytest.mark.parametrize("waits", [False, True], ids=["sends", "receives"])
async def test_a_websocket_may_have_a_deadline_of_its_own(habits: Habits, waits: bool) -> None:
    """
    It is closed with a code and a reason, whatever its handler is doing.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if waits:
            await receive()
        await anyio.sleep_forever()

    peer = Peer(kind="websocket", habits=habits)
    await peer.run(RequestCancelationMiddleware(app, websocket_timeout=30))

    assert peer.closed == (1011, "timed out after 30 seconds")
    assert peer.sent_at[-1] == 30


async def test_a_late_websocket_handler_may_close_in_its_own_way() -> None:
    """
    In its cleanup: the first close counts.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await send({"type": "websocket.close", "code": 4000, "reason": "enough"})

    peer = Peer(kind="websocket")
    await peer.run(RequestCancelationMiddleware(app, websocket_timeout=30))

    assert peer.closed == (4000, "enough")


@pytest.mark.parametrize("extension", [False, True])
async def test_a_websocket_that_is_late_before_it_is_accepted_is_denied(extension: bool) -> None:
    """
    With a problem document where the server can send one, and else with a close.
    """
    peer = Peer(kind="websocket", extensions={"websocket.http.response": {}} if extension else None)
    await peer.run(RequestCancelationMiddleware(wait_for_ever, websocket_timeout=30))

    if extension:
        assert (peer.status, peer.json["reason"]) == (504, "timeout")
        assert peer.closed is None
    else:
        assert peer.closed == (1011, "timed out after 30 seconds")
        assert peer.status is None


async def test_a_websocket_denial_that_has_started_is_cut_short() -> None:
    """
    A close message is no part of a denial.
    """
    deny: Message = {"type": "websocket.http.response.start", "status": 403, "headers": []}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(deny)
        await anyio.sleep_forever()

    peer = Peer(kind="websocket", extensions={"websocket.http.response": {}})
    await peer.run(RequestCancelationMiddleware(app, websocket_timeout=30))

    assert peer.sent == [deny]
