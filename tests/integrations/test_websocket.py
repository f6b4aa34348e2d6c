"""WebSockets: calls that end with their operation, and plain handlers behind the middleware."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio import create_task_group, wait_all_tasks_blocked
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from hother.cancelable import (
    Cancelable,
    CancelationError,
    CancelationReason,
    CancelationToken,
    DisconnectCancelation,
    ManualCancelation,
    TimeoutCancelation,
)
from hother.cancelable.asgi import ASGIApp
from hother.cancelable.integrations.starlette import (
    CancelableWebSocket,
    RequestCancelationMiddleware,
    get_request_token,
)
from tests.asgi_peer import ALL_HABITS, HYPERCORN, UVICORN, Habits, Peer

HOUR = 3600.0

every_server = pytest.mark.parametrize("habits", ALL_HABITS, ids=str)

Endpoint = Callable[[WebSocket], Awaitable[None]]
Call = Callable[[CancelableWebSocket], Awaitable[Any]]

CALLS: dict[str, Call] = {
    "receive_text": lambda websocket: websocket.receive_text(),
    "receive_json": lambda websocket: websocket.receive_json(),
    "send_text": lambda websocket: websocket.send_text("text"),
    "send_json": lambda websocket: websocket.send_json({"a": 1}),
}
each_call = pytest.mark.parametrize("call", list(CALLS.values()), ids=list(CALLS))


def serve(endpoint: Endpoint, *, middleware: bool = True, **options: Any) -> ASGIApp:
    app: Any = Starlette(routes=[WebSocketRoute("/", endpoint)])
    if middleware:
        app.add_middleware(RequestCancelationMiddleware, **options)
    return app  # type: ignore[no-any-return]


def websocket_peer(*messages: bytes | str, habits: Habits = UVICORN) -> Peer:
    return Peer(*messages, kind="websocket", habits=habits)


# --- It works as a WebSocket does


@every_server
@pytest.mark.parametrize("entered", [True, False], ids=["in its block", "not entered"])
async def test_messages_go_both_ways(habits: Habits, entered: bool) -> None:
    """
    Text and JSON, in text and in binary messages, with a subprotocol and headers.
    """
    received: list[Any] = []

    async def talk(websocket: CancelableWebSocket) -> None:
        await websocket.accept(subprotocol="tea", headers=[(b"x-special", b"yes")])
        received.append(await websocket.receive_text())
        received.append(await websocket.receive_json())
        received.append(await websocket.receive_json(mode="binary"))
        await websocket.send_text("text")
        await websocket.send_json({"é": [1, None]})
        await websocket.send_json([], mode="binary")
        await websocket.close(4000, "enough")

    async def endpoint(websocket: WebSocket) -> None:
        operation = Cancelable()
        if entered:
            async with operation:
                await talk(CancelableWebSocket(websocket, operation))
        else:
            await talk(CancelableWebSocket(websocket, operation))

    peer = websocket_peer("one", '{"two": 2}', b"[3]", habits=habits)
    await peer.run(serve(endpoint))

    assert received == ["one", {"two": 2}, [3]]
    assert peer.sent[0] == {
        "type": "websocket.accept",
        "subprotocol": "tea",
        "headers": [(b"x-special", b"yes")],
    }
    assert peer.messages == ["text", '{"é":[1,null]}', b"[]"]
    assert peer.closed == (4000, "enough")


async def test_a_close_has_a_code_and_a_reason_by_default() -> None:
    """
    Normal closure, without words; a second close does nothing.
    """

    async def endpoint(websocket: WebSocket) -> None:
        connection = CancelableWebSocket(websocket, Cancelable())
        await connection.accept()
        await connection.close()
        await connection.close(4000)

    peer = websocket_peer()
    await peer.run(serve(endpoint))

    assert peer.closed == (1000, "")
    assert len(peer.sent) == 2


@pytest.mark.parametrize("websocket", [None, "websocket", object()], ids=["None", "text", "object"])
def test_what_is_no_websocket_is_refused(websocket: Any) -> None:
    """
    The error says what is needed.
    """
    with pytest.raises(TypeError, match="must be a Starlette WebSocket"):
        CancelableWebSocket(websocket, Cancelable())


@pytest.mark.parametrize("cancelable", [None, CancelationToken(), Cancelable], ids=["None", "token", "class"])
def test_what_is_no_operation_is_refused(cancelable: Any) -> None:
    """
    A token is none.
    """

    async def nothing(*args: Any) -> Any: ...

    websocket = WebSocket(websocket_peer().scope, nothing, nothing)
    with pytest.raises(TypeError, match="must be a Cancelable"):
        CancelableWebSocket(websocket, cancelable)


# --- Its calls are interrupted


@each_call
@pytest.mark.parametrize("entered", [True, False], ids=["in its block", "not entered"])
@every_server
async def test_a_waiting_call_is_interrupted(habits: Habits, entered: bool, call: Call) -> None:
    """
    A receive that waits for the client, or a send to a client that does not read.
    """
    ended: list[tuple[type[BaseException], float]] = []
    operation = Cancelable()

    async def wait(connection: CancelableWebSocket) -> None:
        await connection.accept()
        peer.stall()
        await call(connection)

    async def endpoint(websocket: WebSocket) -> None:
        connection = CancelableWebSocket(websocket, operation)
        with pytest.raises(CancelationError) as caught:
            if entered:
                async with operation:
                    await wait(connection)
            else:
                await wait(connection)
        ended.append((caught.type, anyio.current_time()))
        peer.release()

    peer = websocket_peer(habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, serve(endpoint))
        await anyio.sleep(2.5)
        operation.cancel()

    assert ended == [(ManualCancelation, 2.5)]


@each_call
async def test_a_call_in_another_task_is_interrupted(call: Call) -> None:
    """
    The operation's block is in one task, and the call waits in a second one that was started before.
    """
    ended: list[tuple[type[BaseException], float]] = []

    async def endpoint(websocket: WebSocket) -> None:
        operation = Cancelable()
        connection = CancelableWebSocket(websocket, operation)

        async def wait() -> None:
            with pytest.raises(CancelationError) as caught:
                await call(connection)
            ended.append((caught.type, anyio.current_time()))

        await connection.accept()
        peer.stall()
        async with create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.sleep(1)
            with pytest.raises(ManualCancelation):
                async with operation:
                    await anyio.sleep(2.5)
                    operation.cancel()
                    await anyio.sleep(HOUR)
        peer.release()

    peer = websocket_peer(habits=HYPERCORN)
    await peer.run(serve(endpoint))

    assert ended == [(ManualCancelation, 3.5)]


async def test_a_call_ends_at_the_deadline_of_its_operation() -> None:
    """
    Whether the operation was entered, or not: then each call has the whole time.
    """
    ended: list[tuple[type[BaseException], float]] = []

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        with pytest.raises(TimeoutCancelation) as caught:
            async with Cancelable.with_timeout(5) as operation:
                await anyio.sleep(2)
                await CancelableWebSocket(websocket, operation).receive_text()
        ended.append((caught.type, anyio.current_time()))
        with pytest.raises(TimeoutCancelation) as caught:
            await CancelableWebSocket(websocket, Cancelable.with_timeout(3)).receive_text()
        ended.append((caught.type, anyio.current_time()))

    await websocket_peer().run(serve(endpoint))

    assert ended == [(TimeoutCancelation, 5), (TimeoutCancelation, 8)]


async def test_an_outer_cancelation_passes_through_a_call() -> None:
    """
    As the backend's own; it says nothing about the operation.
    """
    operation = Cancelable()

    async def endpoint(websocket: WebSocket) -> None:
        connection = CancelableWebSocket(websocket, operation)
        await connection.accept()
        with anyio.move_on_after(3) as scope:
            await connection.receive_text()
        assert scope.cancelled_caught
        await connection.close()

    peer = websocket_peer()
    await peer.run(serve(endpoint))

    assert anyio.current_time() == 3
    assert peer.closed == (1000, "")
    assert not operation.is_cancelled


async def test_a_disconnect_that_somebody_declares_ends_a_waiting_call() -> None:
    """
    The client is still there, but has sent nothing that could be received in its place.
    """
    operation = Cancelable()
    received: list[str] = []

    async def endpoint(websocket: WebSocket) -> None:
        connection = CancelableWebSocket(websocket, operation)
        await connection.accept()
        with pytest.raises(DisconnectCancelation, match="presumed dead"):
            await connection.receive_text()
        received.append(await websocket.receive_text())

    peer = websocket_peer()
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, serve(endpoint))
        await wait_all_tasks_blocked()
        operation.cancel(CancelationReason.DISCONNECT, "presumed dead")
        await wait_all_tasks_blocked()
        peer.feed("still here")

    assert received == ["still here"]


@each_call
async def test_later_calls_raise_at_once(call: Call) -> None:
    """
    Even if a message is ready, or could be sent.
    """
    errors: list[str] = []

    async def endpoint(websocket: WebSocket) -> None:
        operation = Cancelable()
        connection = CancelableWebSocket(websocket, operation)
        await connection.accept()
        operation.cancel(message="enough")
        for _ in range(2):
            with pytest.raises(ManualCancelation) as caught:
                await call(connection)
            errors.append(str(caught.value))

    peer = websocket_peer("ready")
    await peer.run(serve(endpoint))

    assert errors == ["enough", "enough"]
    assert peer.messages == []


async def test_accepting_is_a_call_like_others() -> None:
    """
    A connection whose operation is cancelled is not accepted.
    """

    async def endpoint(websocket: WebSocket) -> None:
        operation = Cancelable()
        operation.cancel(message="enough")
        await CancelableWebSocket(websocket, operation).accept()

    peer = websocket_peer()
    await peer.run(serve(endpoint))

    assert not peer.accepted
    assert peer.closed == (1013, "enough")


@every_server
@pytest.mark.parametrize("first", ["cancel", "message"])
async def test_an_interrupted_call_takes_no_message(habits: Habits, first: str) -> None:
    """
    Cancelled and answered in one moment: the message is returned, or stays for the next who asks.
    """
    received: list[str] = []
    operation = Cancelable()

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            received.append(await CancelableWebSocket(websocket, operation).receive_text())
        except ManualCancelation:
            received.append(await websocket.receive_text())
        received.append(await websocket.receive_text())

    peer = websocket_peer(habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, serve(endpoint))
        await wait_all_tasks_blocked()
        if first == "cancel":
            operation.cancel()
        peer.feed("one", "two")
        operation.cancel()

    assert received == ["one", "two"]


# --- Closing


@every_server
@pytest.mark.parametrize("entered", [True, False], ids=["in its block", "not entered"])
async def test_a_cancelled_websocket_can_be_closed(habits: Habits, entered: bool) -> None:
    """
    Also from within the cancelled block, where no other call works.
    """

    async def endpoint(websocket: WebSocket) -> None:
        operation = Cancelable.with_timeout(3)
        connection = CancelableWebSocket(websocket, operation)
        await connection.accept()
        with pytest.raises(TimeoutCancelation):
            if entered:
                async with operation:
                    try:
                        await connection.receive_text()
                    finally:
                        await connection.close(4001, "late")
            else:
                await connection.receive_text()
        await connection.close(4001, "late")

    peer = websocket_peer(habits=habits)
    await peer.run(serve(endpoint))

    assert peer.closed == (4001, "late")


@every_server
@pytest.mark.parametrize("middleware", [True, False], ids=["with middleware", "without"])
@pytest.mark.parametrize("noticed", [True, False], ids=["noticed", "unnoticed"])
async def test_closing_is_quiet_after_the_peer_has_left(
    habits: Habits, middleware: bool, noticed: bool
) -> None:
    """
    Whether the handler knows of it, or not.
    """
    steps: list[str] = []

    async def endpoint(websocket: WebSocket) -> None:
        connection = CancelableWebSocket(websocket, Cancelable())
        await connection.accept()
        if noticed:
            with pytest.raises(WebSocketDisconnect):
                await connection.receive_text()
        else:
            peer.disconnect()
        await connection.close()
        steps.append("closed")

    peer = websocket_peer(habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, serve(endpoint, middleware=middleware))
        await wait_all_tasks_blocked()
        peer.disconnect()

    assert steps == ["closed"]
    assert peer.messages == []


async def test_closing_is_bounded_in_time() -> None:
    """
    A client that does not read does not keep the handler.
    """

    async def endpoint(websocket: WebSocket) -> None:
        connection = CancelableWebSocket(websocket, Cancelable())
        await connection.accept()
        peer.stall()
        await connection.close()

    peer = websocket_peer()
    await peer.run(serve(endpoint))

    assert anyio.current_time() == 5


# --- The peer leaves


@every_server
async def test_a_waiting_receive_hears_of_the_peers_leaving(habits: Habits) -> None:
    """
    As ``WebSocketDisconnect`` with the code, though the operation is tied to the request.
    """
    caught: list[WebSocketDisconnect] = []

    async def endpoint(websocket: WebSocket) -> None:
        operation = Cancelable()
        connection = CancelableWebSocket(websocket, operation)
        await connection.accept()
        with pytest.raises(WebSocketDisconnect) as disconnect:
            await connection.receive_text()
        caught.append(disconnect.value)

    peer = websocket_peer(habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, serve(endpoint))
        await wait_all_tasks_blocked()
        peer.disconnect(4001, "bye")

    assert (caught[0].code, caught[0].reason) == (4001, "bye")


@every_server
async def test_a_tied_operation_is_cancelled_when_the_peer_leaves(habits: Habits) -> None:
    """
    Its block is left with a `DisconnectCancelation`, and the handler may still save its work.
    """
    steps: list[str] = []

    async def endpoint(websocket: WebSocket) -> None:
        operation = Cancelable.with_token(get_request_token(websocket))
        connection = CancelableWebSocket(websocket, operation)
        await connection.accept()
        try:
            async with operation:
                await connection.receive_text()
        except (DisconnectCancelation, WebSocketDisconnect):
            await anyio.sleep(1)
            await connection.close()
            steps.append("saved")

    peer = websocket_peer(habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, serve(endpoint))
        await wait_all_tasks_blocked()
        peer.disconnect()

    assert steps == ["saved"]


@every_server
async def test_messages_that_came_before_the_peer_left_can_be_received(habits: Habits) -> None:
    """
    In order, although the operation is cancelled; then ``WebSocketDisconnect`` tells the code.
    """
    received: list[str] = []
    errors: list[Exception] = []

    async def endpoint(websocket: WebSocket) -> None:
        operation = Cancelable.with_token(get_request_token(websocket))
        connection = CancelableWebSocket(websocket, operation)
        await connection.accept()
        await anyio.sleep(HOUR)
        try:
            while True:
                received.append(await connection.receive_text())
        except WebSocketDisconnect as error:
            errors.append(error)

    peer = websocket_peer("one", "two", habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, serve(endpoint, on_disconnect="ignore"))
        await anyio.sleep(1)
        peer.disconnect(1001)

    assert received == ["one", "two"]
    assert [getattr(error, "code", None) for error in errors] == [1001]


@pytest.mark.parametrize("name", ["receive_text", "receive_json"])
async def test_after_the_disconnect_every_call_says_the_same(name: str) -> None:
    """
    Those who ask again and again get the code each time, and never Starlette's complaint about it.
    """
    errors: list[tuple[int, str]] = []

    async def endpoint(websocket: WebSocket) -> None:
        operation = Cancelable.with_token(get_request_token(websocket))
        connection = CancelableWebSocket(websocket, operation)
        await connection.accept()
        for _ in range(3):
            with pytest.raises(WebSocketDisconnect) as caught:
                await getattr(connection, name)()
            errors.append((caught.value.code, caught.value.reason))

    peer = websocket_peer()
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, serve(endpoint))
        await wait_all_tasks_blocked()
        peer.disconnect(4001, "bye")

    assert errors == [(4001, "bye")] * 3


@every_server
async def test_a_group_of_disconnects_is_no_error(habits: Habits) -> None:
    """
    A task group turns the reader's error into a group, which a server would log.
    """

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        async with create_task_group() as tasks:
            tasks.start_soon(websocket.receive_text)

    peer = websocket_peer(habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, serve(endpoint))
        await wait_all_tasks_blocked()
        peer.disconnect()

    assert peer.returned


@every_server
async def test_a_handler_that_only_sends_is_cancelled(habits: Habits) -> None:
    """
    Without a reader, a plain handler would go on for ever.
    """
    ended: list[tuple[type[BaseException], float]] = []

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_text("tick")
                await anyio.sleep(1)
        except BaseException as error:
            ended.append((type(error), anyio.current_time()))
            raise

    peer = websocket_peer(habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, serve(endpoint))
        await anyio.sleep(2.5)
        peer.disconnect()

    assert ended == [(anyio.get_cancelled_exc_class(), 2.5)]
    assert peer.messages == ["tick"] * 3


@every_server
async def test_a_plain_handler_that_waits_may_clean_up_with_awaits(habits: Habits) -> None:
    """
    It gets ``WebSocketDisconnect``, and is not cancelled in its ``except`` block.
    """
    steps: list[str] = []

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect as disconnect:
            await anyio.sleep(2)
            steps.append(f"saved after {disconnect.code}")
            raise

    peer = websocket_peer("one", "two", habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, serve(endpoint))
        await anyio.sleep(2.5)
        peer.disconnect(1001)

    assert steps == ["saved after 1001"]
    assert anyio.current_time() == 4.5
    assert get_request_token(WebSocket(peer.scope, peer.receive, peer.send)).is_cancelled


@every_server
async def test_a_reader_and_a_writer_in_two_tasks_both_end(habits: Habits) -> None:
    """
    The reader hears of it, and its error ends the writer.
    """
    ended: list[str] = []

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()

        async def write() -> None:
            try:
                while True:
                    await websocket.send_text("tick")
                    await anyio.sleep(1)
            finally:
                ended.append("writer")

        async with create_task_group() as tasks:
            tasks.start_soon(write)
            try:
                async for _ in websocket.iter_text():
                    pass
            finally:
                ended.append("reader")
            tasks.cancel_scope.cancel()

    peer = websocket_peer(habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, serve(endpoint))
        await anyio.sleep(2.5)
        peer.disconnect()

    assert ended == ["reader", "writer"]
    assert anyio.current_time() == 2.5


async def test_the_token_of_a_websocket_says_why() -> None:
    """
    It was the client.
    """
    tokens: list[CancelationToken] = []

    async def endpoint(websocket: WebSocket) -> None:
        tokens.append(get_request_token(websocket))
        await websocket.accept()
        await anyio.sleep_forever()

    peer = websocket_peer()
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, serve(endpoint))
        await wait_all_tasks_blocked()
        peer.disconnect()

    assert tokens[0].cancelation is not None
    assert tokens[0].cancelation.reason is CancelationReason.DISCONNECT
