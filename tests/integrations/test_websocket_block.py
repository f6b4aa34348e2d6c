"""The block of a WebSocket: it reads ahead, keeps time, hears of the end and says goodbye."""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import anyio
import pytest
from anyio import create_task_group, wait_all_tasks_blocked
from anyio.lowlevel import checkpoint
from fastapi import Depends, FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import WebSocketException
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from hother.cancelable import (
    Cancelable,
    Cancelation,
    CancelationError,
    CancelationReason,
    CancelationToken,
    ConditionCancelation,
    DisconnectCancelation,
    LifecycleError,
    ManualCancelation,
    OperationStatus,
    TimeoutCancelation,
    current_operation,
)
from hother.cancelable.asgi import TOKEN_KEY
from hother.cancelable.integrations.fastapi import (
    CancelableWebSocket,
    RequestCancelationMiddleware,
    cancelable_dependency,
    get_request_token,
    with_cancelation,
)
from tests.asgi_peer import ALL_HABITS, GUNICORN, HYPERCORN, UVICORN, Habits, Message, Peer
from tests.integrations.test_websocket import HOUR, each_call, every_server, serve, websocket_peer
from tests.sweep import cancelling_at, every_checkpoint

TIGHT = 1  #: a reader that takes hardly anything ahead, in bytes

with_and_without = pytest.mark.parametrize("middleware", [True, False], ids=["with middleware", "without"])


def closes(peer: Peer) -> list[tuple[int, str]]:
    """Every close that was sent."""
    return [(sent["code"], sent["reason"]) for sent in peer.sent if sent["type"] == "websocket.close"]


def operation_for(websocket: WebSocket, **options: Any) -> Cancelable:
    """What the dependency makes."""
    return Cancelable(tokens=[get_request_token(websocket)], **options)


# --- It ends with its client


@every_server
@with_and_without
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "not tied"])
async def test_a_handler_that_only_sends_ends_with_its_client(
    habits: Habits, middleware: bool, tied: bool
) -> None:
    """
    At once, with the reason; nothing is sent to a client that has left.
    """
    ended: list[tuple[type[BaseException], float]] = []

    async def endpoint(websocket: WebSocket) -> None:
        operation = operation_for(websocket) if tied else Cancelable()
        with pytest.raises(DisconnectCancelation) as caught:
            async with CancelableWebSocket(websocket, operation) as socket:
                await socket.accept()
                while True:
                    await socket.send_text("tick")
                    await anyio.sleep(1)
        ended.append((caught.type, anyio.current_time()))
        assert operation.status is OperationStatus.CANCELLED

    peer = websocket_peer(habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, serve(endpoint, middleware=middleware))
        await anyio.sleep(2.5)
        peer.disconnect()

    assert ended == [(DisconnectCancelation, 2.5)]
    assert peer.messages == ["tick"] * 3
    assert closes(peer) == []


@every_server
@with_and_without
async def test_a_handler_that_listens_ends_with_its_client(habits: Habits, middleware: bool) -> None:
    """
    The block is left, whether the handler waits or works; ``except`` and ``finally`` around it may wait.
    """
    received: list[str] = []
    steps: list[str] = []

    async def endpoint(websocket: WebSocket) -> None:
        socket = CancelableWebSocket(websocket, Cancelable())
        try:
            async with socket:
                await socket.accept()
                async for text in socket.iter_text():
                    received.append(text)
        except DisconnectCancelation:
            await anyio.sleep(1)
            steps.append(f"saved after {socket.close_code} {socket.close_reason}")

    peer = websocket_peer("one", "two", habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, serve(endpoint, middleware=middleware))
        await anyio.sleep(2.5)
        peer.disconnect(4001, "bye")

    assert received == ["one", "two"]
    assert steps == ["saved after 4001 bye"]
    assert anyio.current_time() == 3.5


@with_and_without
async def test_what_came_before_the_client_left_can_be_received_after_the_block(middleware: bool) -> None:
    """
    No message is lost because the handler was at work.
    """
    received: list[Any] = []

    async def endpoint(websocket: WebSocket) -> None:
        socket = CancelableWebSocket(websocket, Cancelable(raise_on_cancel=False))
        async with socket:
            await socket.accept()
            received.append(await socket.receive_text())
            await anyio.sleep(HOUR)
        async for text in socket.iter_text():
            received.append(text)
        received.append(await socket.receive())

    peer = websocket_peer("one", "two", "three")
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, serve(endpoint, middleware=middleware))
        await anyio.sleep(1)
        peer.disconnect(1001, "away")

    farewell = {"type": "websocket.disconnect", "code": 1001, "reason": "away"}
    assert received == ["one", "two", "three", farewell]


@with_and_without
@pytest.mark.parametrize("code", [1005, 1006])
async def test_a_lost_connection_has_one_code(middleware: bool, code: int) -> None:
    """
    Servers disagree about which.
    """
    codes: list[Any] = []

    async def endpoint(websocket: WebSocket) -> None:
        socket = CancelableWebSocket(websocket, Cancelable(raise_on_cancel=False))
        async with socket:
            await socket.accept()
            codes.append(socket.close_code)
            await socket.receive_text()
        codes.append(socket.close_code)
        with pytest.raises(WebSocketDisconnect) as caught:
            await socket.receive_text()
        codes.append(caught.value.code)
        codes.append(socket.close_code)

    peer = websocket_peer()
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, serve(endpoint, middleware=middleware))
        await wait_all_tasks_blocked()
        peer.disconnect(code)

    assert codes == [None, 1005, 1005, 1005]


@with_and_without
async def test_starlettes_own_error_ends_the_block_in_the_same_way(middleware: bool) -> None:
    """
    A handler may still use the WebSocket that it was given, in a shielded section too.
    """
    operation = Cancelable()

    async def endpoint(websocket: WebSocket) -> None:
        with pytest.raises(DisconnectCancelation) as caught:
            async with CancelableWebSocket(websocket, operation), create_task_group() as tasks:
                await websocket.accept()
                with anyio.CancelScope(shield=True):
                    tasks.start_soon(anyio.sleep_forever)
                    await websocket.receive_text()
        assert caught.value.__cause__ is not None

    peer = websocket_peer()
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, serve(endpoint, middleware=middleware))
        await wait_all_tasks_blocked()
        peer.disconnect()

    assert operation.status is OperationStatus.CANCELLED


# --- It closes the connection


CAUSES: dict[str, tuple[Callable[[Cancelable], object], type[CancelationError], tuple[int, str]]] = {
    "manual": (lambda operation: operation.cancel(message="enough"), ManualCancelation, (1013, "enough")),
    "shutdown": (
        lambda operation: operation.cancel(CancelationReason.SHUTDOWN),
        CancelationError,
        (1012, "the server is shutting down"),
    ),
    "condition": (
        lambda operation: operation.cancel(CancelationReason.CONDITION, "x" * 122 + "é"),
        ConditionCancelation,
        (1013, "x" * 122),
    ),
    "declared": (
        lambda operation: operation.cancel(CancelationReason.DISCONNECT, "presumed dead"),
        DisconnectCancelation,
        (1001, "presumed dead"),
    ),
    "timeout": (lambda _: None, TimeoutCancelation, (1011, "timed out after 5 seconds")),
}


@every_server
@with_and_without
@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("entered", [True, False], ids=["entered before", "enters"])
async def test_the_code_says_why(habits: Habits, middleware: bool, cause: str, entered: bool) -> None:
    """
    One close, whoever entered the operation, and whoever else would answer for it.
    """
    cancel, error, close = CAUSES[cause]
    operation = Cancelable(timeout=5)

    async def listen(websocket: WebSocket) -> None:
        async with CancelableWebSocket(websocket, operation) as socket:
            await socket.accept()
            assert current_operation() is not None
            await socket.receive_text()

    async def endpoint(websocket: WebSocket) -> None:
        with pytest.raises(error) as caught:
            if entered:
                async with operation:
                    await listen(websocket)
            else:
                await listen(websocket)
        if middleware:
            raise caught.value

    peer = websocket_peer(habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, serve(endpoint, middleware=middleware))
        await anyio.sleep(2.5)
        cancel(operation)

    assert closes(peer) == [close]


@pytest.mark.parametrize("raises", [True, False])
async def test_a_quiet_operation_closes_with_its_cause_too(raises: bool) -> None:
    """
    ``raise_on_cancel`` is about the handler, not about the client.
    """
    went_on: list[bool] = []

    async def endpoint(websocket: WebSocket) -> None:
        async with CancelableWebSocket(websocket, Cancelable(timeout=5, raise_on_cancel=raises)) as socket:
            await socket.accept()
            await socket.receive_text()
        went_on.append(True)

    peer = websocket_peer()
    await peer.run(serve(endpoint))

    assert closes(peer) == [(1011, "timed out after 5 seconds")]
    assert went_on == [] if raises else [True]


@with_and_without
async def test_a_block_that_ends_well_closes_with_1000(middleware: bool) -> None:
    """
    Unless the handler has closed it in its own words; nor does it matter that the client agrees.
    """
    operations = [Cancelable(), Cancelable()]
    peers = [websocket_peer(), websocket_peer()]

    async def endpoint(websocket: WebSocket) -> None:
        number = int(websocket.headers.get("number", "0"))
        async with CancelableWebSocket(websocket, operations[number]) as socket:
            await socket.accept()
            if number:
                await socket.close(4000, "é" * 100)
                peers[1].disconnect(4000)
                await anyio.sleep(1)
                assert socket.close_code == 4000
        assert socket.close_code in {1000, 4000}

    peers[1].scope["headers"] = [(b"number", b"1")]
    for peer in peers:
        await peer.run(serve(endpoint, middleware=middleware))

    assert [closes(peer) for peer in peers] == [[(1000, "")], [(4000, "é" * 61)]]
    assert [operation.status for operation in operations] == [OperationStatus.COMPLETED] * 2


@with_and_without
async def test_an_error_is_for_the_framework_to_answer(middleware: bool) -> None:
    """
    Its exception handlers choose the code, and find the connection open.
    """

    async def endpoint(websocket: WebSocket) -> None:
        socket = CancelableWebSocket(websocket, Cancelable())
        try:
            async with socket:
                await socket.accept()
                raise WebSocketException(1008, "not you")
        finally:
            assert socket.close_code is None

    peer = websocket_peer()
    await peer.run(serve(endpoint, middleware=middleware))

    assert closes(peer) == [(1008, "not you")]


@with_and_without
async def test_an_error_can_be_answered_after_the_block(middleware: bool) -> None:
    """
    By the handler itself.
    """

    async def endpoint(websocket: WebSocket) -> None:
        socket = CancelableWebSocket(websocket, Cancelable())
        try:
            async with socket:
                await socket.accept()
                raise ZeroDivisionError
        except ZeroDivisionError:
            await socket.close(1011, "sorry")

    peer = websocket_peer()
    await peer.run(serve(endpoint, middleware=middleware))

    assert closes(peer) == [(1011, "sorry")]


async def test_a_cancelation_of_another_operation_closes_too() -> None:
    """
    One inside, with a time limit of its own, whose error nobody caught.
    """

    async def endpoint(websocket: WebSocket) -> None:
        with pytest.raises(TimeoutCancelation):
            async with CancelableWebSocket(websocket, Cancelable()) as socket:
                await socket.accept()
                async with Cancelable(timeout=2):
                    await anyio.sleep(HOUR)

    peer = websocket_peer()
    await peer.run(serve(endpoint, middleware=False))

    assert closes(peer) == [(1011, "timed out after 2 seconds")]


@with_and_without
async def test_a_cancelation_from_outside_passes_through_and_closes(middleware: bool) -> None:
    """
    As the backend's own exception.
    """
    operation = Cancelable()

    async def endpoint(websocket: WebSocket) -> None:
        with anyio.move_on_after(3) as scope:
            async with CancelableWebSocket(websocket, operation) as socket:
                await socket.accept()
                await socket.receive_text()
        assert scope.cancelled_caught

    peer = websocket_peer()
    await peer.run(serve(endpoint, middleware=middleware))

    assert closes(peer) == [(1013, "an enclosing scope or task was cancelled")]
    assert operation.status is OperationStatus.CANCELLED


@with_and_without
async def test_the_requests_token_ends_a_block_that_was_not_tied_to_it(middleware: bool) -> None:
    """
    An operator need not know how the handler is written.
    """
    tokens: list[CancelationToken] = []
    operation = Cancelable(raise_on_cancel=False)

    async def endpoint(websocket: WebSocket) -> None:
        tokens.append(get_request_token(websocket))
        async with CancelableWebSocket(websocket, operation) as socket:
            await socket.accept()
            await socket.receive_text()

    peer = websocket_peer()
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, serve(endpoint, middleware=middleware))
        await anyio.sleep(2)
        tokens[0].cancel(message="moved")

    assert closes(peer) == [(1013, "moved")]
    assert operation.cancelation == Cancelation(CancelationReason.MANUAL, "moved")


async def test_the_middlewares_time_limit_ends_a_block() -> None:
    """
    It is the WebSocket's, and the code says so.
    """

    async def endpoint(websocket: WebSocket) -> None:
        async with CancelableWebSocket(websocket, Cancelable()) as socket:
            await socket.accept()
            await socket.receive_text()

    peer = websocket_peer()
    await peer.run(serve(endpoint, websocket_timeout=4))

    assert anyio.current_time() == 4
    assert closes(peer) == [(1011, "timed out after 4 seconds")]


@with_and_without
async def test_codes_can_be_chosen(middleware: bool) -> None:
    """
    By reason; that of a parent is the reason why it was cancelled.
    """
    parent = Cancelable()
    codes = {CancelationReason.MANUAL: 4008}

    async def endpoint(websocket: WebSocket) -> None:
        operation = Cancelable(parent=parent, raise_on_cancel=False)
        async with CancelableWebSocket(websocket, operation, close_codes=codes) as socket:
            await socket.accept()
            await socket.receive_text()

    peer = websocket_peer()
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, serve(endpoint, middleware=middleware))
        await wait_all_tasks_blocked()
        parent.cancel(message="kicked out")

    assert closes(peer) == [(4008, "kicked out")]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"close_codes": {"manual": 4000}}, TypeError),
        ({"close_codes": {CancelationReason.MANUAL: 1006}}, ValueError),
        ({"close_codes": {CancelationReason.MANUAL: 1015}}, ValueError),
        ({"close_codes": {CancelationReason.MANUAL: 5000}}, ValueError),
        ({"close_codes": {CancelationReason.MANUAL: True}}, ValueError),
        ({"idle_timeout": -1}, ValueError),
        ({"idle_timeout": 0}, ValueError),
        ({"keepalive": 0}, ValueError),
        ({"keepalive_message": None}, TypeError),
        ({"send_timeout": "1"}, TypeError),
        ({"close_timeout": float("nan")}, ValueError),
        ({"read_ahead": -1}, ValueError),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], error: type[Exception]) -> None:
    """
    Where the WebSocket is made, rather than when it is closed.
    """
    peer = websocket_peer()
    with pytest.raises(error):
        CancelableWebSocket(WebSocket(peer.scope, peer.receive, peer.send), Cancelable(), **options)


async def in_a_quiet_block(websocket: WebSocket) -> None:
    """
    Be late, and leave the block quietly.
    """
    async with CancelableWebSocket(websocket, Cancelable(timeout=1, raise_on_cancel=False)):
        await anyio.sleep(HOUR)


async def in_a_block(websocket: WebSocket) -> None:
    """
    Be late in a block that raises.
    """
    async with CancelableWebSocket(websocket, Cancelable(timeout=1)):
        await anyio.sleep(HOUR)


@with_cancelation(timeout=1)
async def in_a_decorator(websocket: WebSocket) -> None:
    """
    Be late in an operation that knows nothing of WebSockets.
    """
    await anyio.sleep(HOUR)


async def by_hand(websocket: WebSocket) -> None:
    """
    Be late in a plain operation.
    """
    async with Cancelable(timeout=1):
        await anyio.sleep(HOUR)


late = pytest.mark.parametrize(
    "endpoint", [in_a_quiet_block, in_a_block, in_a_decorator, by_hand], ids=lambda it: it.__name__
)


@late
@with_and_without
@pytest.mark.parametrize("extension", [True, False], ids=["response", "no response"])
async def test_a_connection_that_was_not_accepted_is_denied(
    endpoint: Callable[[WebSocket], Awaitable[None]], middleware: bool, extension: bool
) -> None:
    """
    With the status of the cancelation and its document, where the server can send one; else with a close.
    """
    peer = Peer(kind="websocket", extensions={"websocket.http.response": {}} if extension else {})
    answers = middleware or endpoint is not by_hand
    with suppress(*[] if middleware or endpoint is in_a_quiet_block else [TimeoutCancelation]):
        await peer.run(serve(endpoint, middleware=middleware))

    assert peer.violations == []
    assert not peer.accepted
    assert peer.status == (504 if extension and answers else None)
    expected = [(1011, "timed out after 1 seconds")] if answers and not extension else []
    assert closes(peer) == expected


@pytest.mark.parametrize("raises", [True, False], ids=["raises", "quiet"])
@with_and_without
async def test_a_declared_disconnect_is_no_status(raises: bool, middleware: bool) -> None:
    """
    499 is for logs: servers cannot send it. A close does not say more, but is one.
    """

    async def endpoint(websocket: WebSocket) -> None:
        operation = Cancelable(raise_on_cancel=raises)
        async with CancelableWebSocket(websocket, operation):
            operation.cancel(CancelationReason.DISCONNECT)
            await anyio.sleep(HOUR)

    peer = Peer(kind="websocket", extensions={"websocket.http.response": {}})
    with suppress(DisconnectCancelation):
        await peer.run(serve(endpoint, middleware=middleware))

    assert peer.status is None
    assert closes(peer) == [(1001, "the client disconnected")]


async def test_a_denial_of_the_handlers_that_is_cut_short_is_left_so() -> None:
    """
    Nothing fits behind a part of it.
    """

    @with_cancelation(timeout=1)
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.send({"type": "websocket.http.response.start", "status": 401, "headers": []})
        await anyio.sleep(HOUR)

    peer = Peer(kind="websocket", extensions={"websocket.http.response": {}})
    await peer.run(serve(endpoint))

    assert [message["type"] for message in peer.sent] == ["websocket.http.response.start"]


async def test_the_decorator_does_not_close_again() -> None:
    """
    Nor does an exception handler.
    """

    @with_cancelation(timeout=3)
    async def endpoint(websocket: WebSocket) -> None:
        async with CancelableWebSocket(websocket, operation_for(websocket, timeout=2)) as socket:
            await socket.accept()
            await socket.receive_text()

    peer = websocket_peer()
    await peer.run(serve(endpoint))

    assert closes(peer) == [(1011, "timed out after 2 seconds")]


async def test_an_application_that_is_wrapped_as_a_whole_does_not_close_again() -> None:
    """
    There Starlette's own error handling is inside of the middleware.
    """

    async def endpoint(websocket: WebSocket) -> None:
        async with CancelableWebSocket(websocket, Cancelable(timeout=2)) as socket:
            await socket.accept()
            await socket.receive_text()

    peer = websocket_peer()
    await peer.run(RequestCancelationMiddleware(serve(endpoint, middleware=False)))

    assert closes(peer) == [(1011, "timed out after 2 seconds")]


async def test_fastapi_hands_out_the_operation() -> None:
    """
    With its time limit, and with a path parameter of the connection.
    """
    app = FastAPI()
    app.add_middleware(RequestCancelationMiddleware)

    @app.websocket("/rooms/{room}")
    async def endpoint(
        websocket: WebSocket,
        room: str,
        cancel: Cancelable = Depends(cancelable_dependency.with_options(timeout=2)),
    ) -> None:
        async with CancelableWebSocket(websocket, cancel) as socket:
            await socket.accept()
            assert current_operation() is cancel
            await socket.send_json({"room": socket.path_params["room"]})
            await socket.receive_text()

    peer = Peer(kind="websocket", path="/rooms/blue")
    await peer.run(app)

    assert peer.messages == ['{"room":"blue"}']
    assert closes(peer) == [(1011, "timed out after 2 seconds")]


# --- Time


@every_server
@with_and_without
async def test_a_client_that_says_nothing_is_let_go(habits: Habits, middleware: bool) -> None:
    """
    Every message starts the time anew, whether the handler has asked for it or not.
    """

    async def endpoint(websocket: WebSocket) -> None:
        async with CancelableWebSocket(websocket, Cancelable(), idle_timeout=10) as socket:
            await socket.accept()
            await socket.receive_text()
            await anyio.sleep(HOUR)

    peer = websocket_peer(habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(run_quietly, peer, serve(endpoint, middleware=middleware))
        for _ in range(3):
            await anyio.sleep(9)
            peer.feed("still here")

    assert anyio.current_time() == 37
    assert closes(peer) == [(1011, "the client sent nothing for 10 seconds")]


async def run_quietly(peer: Peer, app: Any) -> None:
    """Without the middleware, the error of a cancelled handler reaches the server."""
    with suppress(CancelationError):
        await peer.run(app)


@with_and_without
async def test_a_slow_handler_is_no_silent_client(middleware: bool) -> None:
    """
    While the reader is full, nothing can be heard.
    """

    async def endpoint(websocket: WebSocket) -> None:
        socket = CancelableWebSocket(websocket, Cancelable(), idle_timeout=10, read_ahead=TIGHT)
        async with socket:
            await socket.accept()
            await anyio.sleep(HOUR)
            assert await socket.receive_text() == "one"
            assert await socket.receive_text() == "two"
            assert await socket.receive_text() == "three"

    peer = websocket_peer("one", "two", "three")
    await peer.run(serve(endpoint, middleware=middleware, **({"read_ahead": TIGHT} if middleware else {})))

    assert closes(peer) == [(1000, "")]


@every_server
@with_and_without
async def test_a_client_that_reads_nothing_is_let_go(habits: Habits, middleware: bool) -> None:
    """
    The close frame would not get through either, so it is not waited for.
    """
    operation = Cancelable()

    async def endpoint(websocket: WebSocket) -> None:
        async with CancelableWebSocket(websocket, operation, send_timeout=3) as socket:
            await socket.accept()
            await socket.send_text("one")
            peer.stall()
            await socket.send_text("two")

    peer = websocket_peer(habits=habits)
    await run_quietly(
        peer, serve(endpoint, middleware=middleware, **({"answer_timeout": 0} if middleware else {}))
    )

    assert anyio.current_time() == 3
    assert operation.cancelation == Cancelation(
        CancelationReason.TIMEOUT, "the client took no message for 3 seconds"
    )


async def test_a_send_timeout_needs_no_block() -> None:
    """
    The call raises, and so do all later ones.
    """

    async def endpoint(websocket: WebSocket) -> None:
        operation = Cancelable()
        socket = CancelableWebSocket(websocket, operation, send_timeout=3)
        await socket.accept()
        peer.stall()
        for _ in range(2):
            with pytest.raises(TimeoutCancelation, match="took no message"):
                await socket.send_text("two")
        peer.release()

    peer = websocket_peer()
    await peer.run(serve(endpoint))

    assert anyio.current_time() == 3


@with_and_without
@pytest.mark.parametrize("message", ["", b"\x00"], ids=["text", "bytes"])
async def test_something_is_sent_when_there_is_nothing_to_say(middleware: bool, message: str | bytes) -> None:
    """
    Each time that nothing else was sent for so long.
    """

    async def endpoint(websocket: WebSocket) -> None:
        socket = CancelableWebSocket(websocket, Cancelable(), keepalive=10, keepalive_message=message)
        async with socket:
            await anyio.sleep(15)  # before it is accepted there is nothing to keep alive
            await socket.accept()  # 15; next at 25
            await anyio.sleep(6)
            await socket.send_text("a word")  # 21; next at 31 and 41
            await anyio.sleep(24)

    peer = websocket_peer()
    await peer.run(serve(endpoint, middleware=middleware))

    sent = [(at, sent.get("type")) for at, sent in zip(peer.sent_at, peer.sent, strict=True)]
    assert [at for at, kind in sent if kind == "websocket.send"] == [21, 31, 41]
    assert peer.messages == ["a word", message, message]
    assert closes(peer) == [(1000, "")]


async def test_a_keepalive_that_nobody_reads_ends_the_block() -> None:
    """
    It has the same time limit as other messages.
    """

    async def endpoint(websocket: WebSocket) -> None:
        async with CancelableWebSocket(websocket, Cancelable(), keepalive=10, send_timeout=1) as socket:
            await socket.accept()
            peer.stall()
            await socket.receive_text()

    peer = websocket_peer()
    await peer.run(serve(endpoint, answer_timeout=0))

    assert anyio.current_time() == 11


@each_call
@pytest.mark.parametrize("options", [{"idle_timeout": 1}, {"keepalive": 1}], ids=str)
async def test_who_needs_the_block_says_so(
    call: Callable[..., Awaitable[Any]], options: dict[str, Any]
) -> None:
    """
    A time limit without effect would be worse than none.
    """

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        with pytest.raises(LifecycleError, match="need a block"):
            await call(CancelableWebSocket(websocket, Cancelable(), **options))

    await websocket_peer("one").run(serve(endpoint))


# --- Entering it


async def test_a_block_is_entered_once() -> None:
    """
    Like the operation's.
    """

    async def endpoint(websocket: WebSocket) -> None:
        async with CancelableWebSocket(websocket, Cancelable()) as socket:
            await socket.accept()
            with pytest.raises(LifecycleError, match="entered already"):
                await socket.__aenter__()

    await websocket_peer().run(serve(endpoint))


async def test_an_operation_that_has_ended_takes_up_no_websocket() -> None:
    """
    It raises why it was cancelled, if it was.
    """

    async def endpoint(websocket: WebSocket) -> None:
        ended, cancelled = Cancelable(), Cancelable(raise_on_cancel=False)
        async with ended:
            pass
        async with cancelled:
            cancelled.cancel()
            await anyio.sleep(1)
        with pytest.raises(LifecycleError, match="completed"):
            await CancelableWebSocket(websocket, ended).__aenter__()
        with pytest.raises(ManualCancelation):
            await CancelableWebSocket(websocket, cancelled).__aenter__()

    await websocket_peer().run(serve(endpoint, middleware=False))


@with_and_without
async def test_an_operation_in_another_task_ends_the_block(middleware: bool) -> None:
    """
    Its own block need not lie around it.
    """
    ended: list[float] = []

    async def endpoint(websocket: WebSocket) -> None:
        operation = Cancelable(timeout=3, raise_on_cancel=False)

        async def run_operation() -> None:
            async with operation:
                await anyio.sleep(HOUR)

        async with create_task_group() as tasks:
            tasks.start_soon(run_operation)
            await wait_all_tasks_blocked()
            async with CancelableWebSocket(websocket, operation) as socket:
                await socket.accept()
                await anyio.sleep(HOUR)
            ended.append(anyio.current_time())

    peer = websocket_peer()
    await peer.run(serve(endpoint, middleware=middleware))

    assert ended == [3]
    assert closes(peer) == [(1011, "timed out after 3 seconds")]


@with_and_without
async def test_an_operation_that_cannot_begin_leaves_nothing_behind(middleware: bool) -> None:
    """
    Such as one with a callback that ends the program.
    """

    class ProgramEnds(BaseException):
        pass

    def end(context: object) -> None:
        raise ProgramEnds

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        with pytest.raises(ProgramEnds):
            await CancelableWebSocket(websocket, Cancelable().on_start(end)).__aenter__()
        await websocket.send_text("still here")

    peer = websocket_peer()
    await peer.run(serve(endpoint, middleware=middleware))

    assert peer.messages == ["still here"]


async def test_two_wrappers_of_one_websocket_share_the_reader() -> None:
    """
    The inner block ends first, and the outer one reads on.
    """
    received: list[str] = []

    async def endpoint(websocket: WebSocket) -> None:
        async with CancelableWebSocket(websocket, Cancelable()) as outer:
            await outer.accept()
            with pytest.raises(ZeroDivisionError):
                async with CancelableWebSocket(websocket, Cancelable()) as inner:
                    received.append(await inner.receive_text())
                    raise ZeroDivisionError
            received.append(await outer.receive_text())

    peer = websocket_peer("one", "two")
    await peer.run(serve(endpoint, middleware=False))

    assert received == ["one", "two"]


# --- Its calls


@with_and_without
async def test_two_tasks_cannot_receive_at_once(middleware: bool) -> None:
    """
    The second one is told, and the first one gets the message.
    """
    received: list[str] = []

    async def endpoint(websocket: WebSocket) -> None:
        async with CancelableWebSocket(websocket, Cancelable()) as socket:
            await socket.accept()

            async def listen() -> None:
                received.append(await socket.receive_text())

            async with create_task_group() as tasks:
                tasks.start_soon(listen)
                await wait_all_tasks_blocked()
                with pytest.raises(anyio.BusyResourceError, match="receiving"):
                    await socket.receive_text()
                peer.feed("one")

    peer = websocket_peer()
    await peer.run(serve(endpoint, middleware=middleware))

    assert received == ["one"]


async def test_many_tasks_may_hear_that_the_client_has_left() -> None:
    """
    Once it is known: there is no message to lose.
    """
    codes: list[int] = []

    async def endpoint(websocket: WebSocket) -> None:
        socket = CancelableWebSocket(websocket, Cancelable())
        await socket.accept()

        async def listen() -> None:
            with pytest.raises(WebSocketDisconnect) as caught:
                await socket.receive_text()
            codes.append(caught.value.code)

        await listen()
        async with create_task_group() as tasks:
            tasks.start_soon(listen)
            tasks.start_soon(listen)

    peer = websocket_peer()
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, serve(endpoint))
        await wait_all_tasks_blocked()
        peer.disconnect(1001)

    assert codes == [1001] * 3


@every_server
@with_and_without
async def test_others_may_send_to_a_client_that_has_left(habits: Habits, middleware: bool) -> None:
    """
    A task that sends to many is not the one to suffer: nothing happens, before and after the block.
    """
    steps: list[str] = []

    async def endpoint(websocket: WebSocket) -> None:
        socket = CancelableWebSocket(websocket, Cancelable(raise_on_cancel=False))

        async def broadcast() -> None:
            for second in range(5):
                await socket.send_text(f"at {second}")
                await anyio.sleep(1)
            steps.append("all sent")

        await socket.accept()
        async with create_task_group() as tasks:
            async with socket:
                tasks.start_soon(broadcast)
                await anyio.sleep(HOUR)
            steps.append("left")

    peer = websocket_peer(habits=habits)
    async with create_task_group() as tasks:
        tasks.start_soon(
            peer.run,
            serve(endpoint, middleware=middleware, **({"on_disconnect": "ignore"} if middleware else {})),
        )
        await anyio.sleep(1.5)
        peer.disconnect()

    assert steps == ["left", "all sent"]
    assert peer.messages == ["at 0", "at 1"]


@pytest.mark.parametrize(
    ("habits", "middleware"),
    [
        pytest.param(habits, middleware, id=f"{habits.name}-{'with' if middleware else 'without'} middleware")
        for habits in ALL_HABITS
        for middleware in (True, False)
        if middleware or habits.late_send_ws != "ignored"  # else the server is silent, and nobody reads
    ],
)
async def test_without_a_block_the_sender_is_told(habits: Habits, middleware: bool) -> None:
    """
    Nothing else would end its loop, if the server tells it at all.
    """
    operation = Cancelable()
    steps: list[str] = []

    async def endpoint(websocket: WebSocket) -> None:
        socket = CancelableWebSocket(websocket, operation)
        await socket.accept()
        peer.disconnect(1001)
        with anyio.CancelScope(shield=True):
            await wait_all_tasks_blocked()
            with pytest.raises(DisconnectCancelation):
                while True:
                    await socket.send_text("tick")
            with pytest.raises(WebSocketDisconnect) as caught:
                await socket.receive_text()
            steps.append(f"told {caught.value.code}")

    peer = websocket_peer(habits=habits)
    await peer.run(serve(endpoint, middleware=middleware))

    assert peer.messages == []
    assert steps == ["told 1001"]


@pytest.mark.parametrize(("middleware", "wrapped"), [(True, True), (True, False), (False, True)])
async def test_a_handler_that_does_nothing_but_send_lets_others_run(middleware: bool, wrapped: bool) -> None:
    """
    Some servers are silent, and never let go of the event loop, when they send to a client that has left.
    """
    silent = replace(UVICORN, name="silent", late_send_ws="ignored")

    async def flood(socket: WebSocket) -> None:
        for number in range(1000):
            if number == 3:
                peer.disconnect()
            await socket.send_text(str(number))
        pytest.fail("it has stopped everything else")

    async def endpoint(websocket: WebSocket) -> None:
        if wrapped:
            async with CancelableWebSocket(websocket, Cancelable(raise_on_cancel=False)) as socket:
                await socket.accept()
                await flood(socket)
        else:
            await websocket.accept()
            await flood(websocket)

    peer = websocket_peer(habits=silent)
    await peer.run(serve(endpoint, middleware=middleware))


@pytest.mark.parametrize("gone", [True, False], ids=["left", "declared"])
async def test_a_waiting_send_ends_when_the_client_leaves(gone: bool) -> None:
    """
    Quietly, but for a client that is only presumed to have left.
    """
    steps: list[str] = []

    async def endpoint(websocket: WebSocket) -> None:
        operation = Cancelable(raise_on_cancel=False)
        socket = CancelableWebSocket(websocket, operation)

        async def send() -> None:
            try:
                await socket.send_text("one")
            except DisconnectCancelation as error:
                steps.append(str(error))
            steps.append(f"over at {anyio.current_time():g}")

        await socket.accept()
        peer.stall()
        async with create_task_group() as tasks:
            tasks.start_soon(send)
            await anyio.sleep(1)
            async with socket:
                await anyio.sleep(1)
                if gone:
                    peer.disconnect()
                else:
                    operation.cancel(CancelationReason.DISCONNECT, "presumed dead")
                    peer.release()
                await anyio.sleep(HOUR)

    peer = websocket_peer(habits=GUNICORN)  # which does not let go of a message by itself
    await peer.run(serve(endpoint, answer_timeout=HOUR))

    assert steps == (["over at 2"] if gone else ["presumed dead", "over at 2"])


async def test_a_server_that_refuses_to_send_and_then_says_nothing() -> None:
    """
    The client is taken for gone after a moment.
    """

    async def refuse(message: Message) -> None:
        if message["type"] == "websocket.send":
            raise OSError

    async def endpoint(websocket: WebSocket) -> None:
        silent = WebSocket(websocket.scope, websocket.receive, refuse)
        socket = CancelableWebSocket(silent, Cancelable())
        await socket.accept()
        with pytest.raises(DisconnectCancelation):
            await socket.send_text("one")
        assert socket.close_code is None
        with pytest.raises(WebSocketDisconnect) as caught:
            await socket.receive_text()
        assert caught.value.code == socket.close_code == 1005

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await endpoint(WebSocket(scope, receive, send))

    peer = websocket_peer()
    peer.strict = False
    await peer.run(app)


@pytest.mark.parametrize("known", [True, False])
async def test_a_runtime_error_of_the_server_counts_once_the_client_is_known_to_have_left(
    known: bool,
) -> None:
    """
    Some servers raise that; before, it is a mistake somewhere that must be seen.
    """

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def refuse(message: Message) -> None:
            if message["type"] == "websocket.send":
                if known:
                    peer.disconnect()
                    with anyio.CancelScope(shield=True):
                        await wait_all_tasks_blocked()
                raise RuntimeError("no")
            await send(message)

        async with CancelableWebSocket(WebSocket(scope, receive, refuse), Cancelable()) as socket:
            await socket.accept()
            await socket.send_text("one")

    peer = websocket_peer()
    with pytest.raises(DisconnectCancelation if known else RuntimeError):
        await peer.run(app)


@with_and_without
async def test_a_shielded_section_may_talk(middleware: bool) -> None:
    """
    Although the operation is cancelled: that takes effect after the section.
    """

    async def endpoint(websocket: WebSocket) -> None:
        operation = Cancelable(raise_on_cancel=False)
        async with CancelableWebSocket(websocket, operation) as socket:
            await socket.accept()
            async with operation.shield(timeout=5):
                operation.cancel(message="enough")
                await socket.send_text(f"last words to {await socket.receive_text()}")
            await socket.send_text("one too many")

    peer = websocket_peer("Ann")
    await peer.run(serve(endpoint, middleware=middleware))

    assert peer.messages == ["last words to Ann"]
    assert closes(peer) == [(1013, "enough")]


async def test_calls_work_after_the_operation_has_ended_well() -> None:
    """
    A block for a part of the conversation.
    """

    async def endpoint(websocket: WebSocket) -> None:
        operation = Cancelable(timeout=5)
        socket = CancelableWebSocket(websocket, operation)
        await socket.accept()
        async with operation:
            await socket.receive_text()
        await anyio.sleep(10)
        await socket.send_text("that is all")
        await socket.close()

    peer = websocket_peer("one")
    await peer.run(serve(endpoint))

    assert peer.messages == ["that is all"]


async def test_a_call_in_a_task_outside_of_the_block_ends_with_the_operation() -> None:
    """
    The block's scope does not reach it; the operation does.
    """

    async def endpoint(websocket: WebSocket) -> None:
        operation = Cancelable(raise_on_cancel=False)
        socket = CancelableWebSocket(websocket, operation)
        await socket.accept()

        async def listen() -> None:
            with pytest.raises(ManualCancelation, match="enough"):
                await socket.receive_text()

        async with create_task_group() as tasks:
            async with operation:
                tasks.start_soon(listen)
                await anyio.sleep(1)
                operation.cancel(message="enough")
                await anyio.sleep(1)

    await websocket_peer().run(serve(endpoint))

    assert anyio.current_time() == 1


async def test_a_call_that_outlives_its_operation_ends_at_the_deadline() -> None:
    """
    In another task, where nobody waits for it.
    """

    async def endpoint(websocket: WebSocket) -> None:
        operation = Cancelable(timeout=5)
        socket = CancelableWebSocket(websocket, operation)
        await socket.accept()

        async def listen() -> None:
            with pytest.raises(TimeoutCancelation):
                await socket.receive_text()

        async with create_task_group() as tasks:
            async with operation:
                tasks.start_soon(listen)
                await anyio.sleep(1)

    await websocket_peer().run(serve(endpoint))

    assert anyio.current_time() == 5


@pytest.mark.parametrize(
    ("name", "message", "kind"), [("receive_text", b"1", "text"), ("receive_bytes", "1", "bytes")]
)
async def test_a_message_of_the_wrong_kind_is_refused(name: str, message: str | bytes, kind: str) -> None:
    """
    With the code for that, by Starlette.
    """

    async def endpoint(websocket: WebSocket) -> None:
        async with CancelableWebSocket(websocket, Cancelable()) as socket:
            await socket.accept()
            await getattr(socket, name)()

    peer = websocket_peer(message)
    await peer.run(serve(endpoint))

    assert closes(peer) == [(1003, f"expected a message of {kind}")]


@with_and_without
async def test_bytes_and_documents_come_one_by_one(middleware: bool) -> None:
    """
    With the names that Starlette has for it.
    """
    received: list[Any] = []

    async def endpoint(websocket: WebSocket) -> None:
        async with CancelableWebSocket(websocket, Cancelable()) as socket:
            await socket.accept()
            received.append(await socket.receive_bytes())
            async for data in socket.iter_bytes():
                received.append(data)
                break
            async for document in socket.iter_json():
                received.append(document)
                break
            received.append(await socket.receive())
            await socket.send_bytes(b"x")
            with pytest.raises(RuntimeError, match="mode"):
                await socket.receive_json("yaml")

    peer = websocket_peer(b"1", b"2", "[3]", "4")
    await peer.run(serve(endpoint, middleware=middleware))

    assert received == [b"1", b"2", [3], {"type": "websocket.receive", "text": "4"}]
    assert peer.messages == [b"x"]


@with_and_without
async def test_a_closed_or_unaccepted_websocket_receives_nothing(middleware: bool) -> None:
    """
    The first is like one that the client has closed, the second is a mistake.
    """
    codes: list[Any] = []

    async def endpoint(websocket: WebSocket) -> None:
        async with CancelableWebSocket(websocket, Cancelable()) as socket:
            with pytest.raises(RuntimeError, match="accept"):
                await socket.receive_text()
            await socket.accept()
            await socket.close(4000, "enough")
            for _ in range(2):
                with pytest.raises(WebSocketDisconnect) as caught:
                    await socket.receive_text()
                codes.append((caught.value.code, caught.value.reason))
            async for _ in socket.iter_text():
                pass
            with pytest.raises(RuntimeError, match="close message"):
                await socket.send_text("more")
            codes.append((await socket.receive())["type"])

    peer = websocket_peer()
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, serve(endpoint, middleware=middleware))
        await wait_all_tasks_blocked()
        peer.disconnect()

    assert codes == [(4000, "enough")] * 2 + ["websocket.disconnect"]


async def test_it_knows_all_about_the_connection() -> None:
    """
    It is a WebSocket of Starlette's.
    """

    async def endpoint(websocket: WebSocket) -> None:
        socket = CancelableWebSocket(websocket, Cancelable())
        assert isinstance(socket, WebSocket)
        assert socket.headers["x-a"] == "b"
        assert socket.cookies == {"c": "d"}
        assert socket.query_params["q"] == "1"
        assert (socket.url.path, socket.url.query) == ("/", "q=1")
        assert socket.client is not None
        assert socket.client.host == "192.0.2.1"
        assert socket["subprotocols"] == []
        assert socket.state is not None
        assert socket.app is websocket.app
        assert socket.application_state is websocket.application_state
        assert repr(socket) == "<CancelableWebSocket '/' connecting>"
        await socket.accept()
        assert repr(socket) == "<CancelableWebSocket '/' connected>"
        assert get_request_token(socket) is get_request_token(websocket)
        with pytest.raises(AttributeError):
            socket.no_such_thing  # noqa: B018
        with pytest.raises(AttributeError):
            object.__new__(CancelableWebSocket).scope  # noqa: B018

    peer = Peer(kind="websocket", query="q=1", headers=[("x-a", "b"), ("cookie", "c=d")])
    await peer.run(serve(endpoint))


@with_and_without
async def test_a_connection_can_be_denied_with_a_response(middleware: bool) -> None:
    """
    In the block, which then has nothing to close.
    """

    async def endpoint(websocket: WebSocket) -> None:
        async with CancelableWebSocket(websocket, Cancelable()) as socket:
            await socket.send_denial_response(PlainTextResponse("no", 403))

    peer = Peer(kind="websocket", extensions={"websocket.http.response": {}})
    await peer.run(serve(endpoint, middleware=middleware))

    assert (peer.status, peer.body) == (403, b"no")
    assert closes(peer) == []


# --- Failures


@pytest.mark.parametrize("waits", [True, False])
async def test_a_server_that_cannot_receive_ends_the_block(waits: bool) -> None:
    """
    Whoever waits for a message gets the server's error, and a handler that only sends is cancelled.
    """
    failing = anyio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def fail() -> Message:
            await failing.wait()
            raise ZeroDivisionError("of the server")

        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        websocket._receive = fail
        async with CancelableWebSocket(websocket, Cancelable()) as socket:
            failing.set()
            if waits:
                await socket.receive_text()
            else:
                await anyio.sleep(HOUR)

    peer = websocket_peer()
    expected = (
        pytest.raises(ZeroDivisionError)
        if waits
        else pytest.raises(CancelationError, match="receiving failed: ZeroDivisionError")
    )
    with expected:
        await peer.run(app)


@pytest.mark.parametrize("raises", [True, False])
async def test_a_keepalive_that_fails_ends_the_block_with_its_error(raises: bool) -> None:
    """
    Rather than in silence.
    """

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def fail(message: Message) -> None:
            if message["type"] == "websocket.send":
                raise ZeroDivisionError("of the server")
            await send(message)

        operation = Cancelable(raise_on_cancel=raises)
        async with CancelableWebSocket(WebSocket(scope, receive, fail), operation, keepalive=1) as socket:
            await socket.accept()
            await socket.receive_text()

    peer = websocket_peer()
    with pytest.raises(ZeroDivisionError, match="of the server"):
        await peer.run(app)


@pytest.mark.parametrize("fails", [True, False], ids=["after an error", "after success"])
async def test_a_close_that_fails_hides_nothing(fails: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """
    What ended the block goes on, and the server's error is reported; else that goes on.
    """

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def fail(message: Message) -> None:
            if message["type"] == "websocket.close":
                raise ZeroDivisionError("of the server")
            await send(message)

        async with CancelableWebSocket(WebSocket(scope, receive, fail), Cancelable(timeout=1)) as socket:
            await socket.accept()
            if fails:
                await socket.receive_text()

    peer = websocket_peer()
    with pytest.raises(TimeoutCancelation if fails else ZeroDivisionError):
        await peer.run(app)

    assert ("ZeroDivisionError: of the server" in capsys.readouterr().err) == fails


# --- Whatever happens when


class Interrupted:
    """A WebSocket that is interrupted at one of its checkpoints, for one cause or another."""

    def __init__(self, cause: str, habits: Habits) -> None:
        self.peer = websocket_peer("one", "two", "three", habits=habits)
        self.operation = Cancelable(raise_on_cancel=False)
        self.scope = anyio.CancelScope()
        self.received: list[str] = []
        ways: dict[str, Callable[[], object]] = {
            "cancel": self.operation.cancel,
            "outside": self.scope.cancel,
            "disconnect": self.peer.disconnect,
        }
        self.interrupt = ways[cause]

    async def endpoint(self, websocket: WebSocket) -> None:
        socket = CancelableWebSocket(
            websocket, self.operation, idle_timeout=50, keepalive=60, send_timeout=70
        )
        async with socket:
            await socket.accept()
            for _ in range(3):
                self.received.append(await socket.receive_text())
                await socket.send_text(self.received[-1])
        if self.peer.gone and self.peer.accepted:
            async for text in socket.iter_text():
                self.received.append(text)

    async def run(self, number: int, *, middleware: bool) -> int:
        """Interrupt it where it waits for the nth time, and tell how often it waited."""
        with self.scope:
            app = serve(self.endpoint, middleware=middleware)
            _, waits = await cancelling_at(number, self.interrupt, run_on(self.peer, app))
            return 0 if self.operation.is_cancelled else waits
        return 0


async def run_on(peer: Peer, app: Any) -> None:
    await peer.run(app)


@pytest.mark.parametrize("cause", ["cancel", "outside", "disconnect"])
@pytest.mark.parametrize("habits", [UVICORN, HYPERCORN, GUNICORN], ids=str)
@with_and_without
async def test_wherever_it_is_interrupted_it_ends_well(cause: str, habits: Habits, middleware: bool) -> None:
    """
    One close at most, no rule of ASGI broken, no task left, and no message lost when the client leaves.
    """

    async def attempt(number: int) -> int:
        interrupted = Interrupted(cause, habits)
        waits = await interrupted.run(number, middleware=middleware)
        peer, received = interrupted.peer, interrupted.received
        assert peer.violations == []
        assert len(closes(peer)) <= 1
        assert received == ["one", "two", "three"][: len(received)]
        if cause == "disconnect" and peer.accepted:
            assert received == ["one", "two", "three"]
        return waits

    async for _ in every_checkpoint(attempt):
        pass


async def receive_in_time(socket: CancelableWebSocket, received: list[str]) -> None:
    with anyio.move_on_after(1):
        received.append(await socket.receive_text())


async def receive_at_once(socket: CancelableWebSocket, received: list[str]) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        received.append(await socket.receive_text())


async def receive_in_a_task(socket: CancelableWebSocket, received: list[str]) -> None:
    async def receive() -> None:
        received.append(await socket.receive_text())

    async with create_task_group() as tasks:
        tasks.start_soon(receive)
        await checkpoint()
        tasks.cancel_scope.cancel()


async def pass_by(socket: CancelableWebSocket, received: list[str]) -> None:
    await checkpoint()


STEPS = (receive_in_time, receive_at_once, receive_in_a_task, pass_by)


@given(
    script=st.lists(st.sampled_from([None, *STEPS]), max_size=25),
    tight=st.booleans(),
    middleware=st.booleans(),
    habits=st.sampled_from(ALL_HABITS),
)
async def test_no_message_is_lost_or_reordered(
    script: list[Callable[[CancelableWebSocket, list[str]], Awaitable[None]] | None],
    tight: bool,
    middleware: bool,
    habits: Habits,
) -> None:
    """
    Whatever the order of what the client sends (``None``), of calls and of their interruptions.
    """
    received: list[str] = []
    sent: list[str] = []
    options: dict[str, Any] = {"read_ahead": TIGHT} if tight else {}

    async def endpoint(websocket: WebSocket) -> None:
        socket = CancelableWebSocket(websocket, Cancelable(raise_on_cancel=False), **options)
        async with socket:
            await socket.accept()
            for step in script:
                if step is None:
                    sent.append(str(len(sent)))
                    peer.feed(sent[-1])
                else:
                    await step(socket, received)
            peer.disconnect()
            if tight:  # else the client's leaving is in the line behind what nobody reads
                received.extend([await socket.receive_text() for _ in sent[len(received) :]])
            await anyio.sleep(HOUR)
        async for text in socket.iter_text():
            received.append(text)

    peer = websocket_peer(habits=habits)
    await peer.run(serve(endpoint, middleware=middleware, **(options if middleware else {})))

    assert received == sent
    assert anyio.current_time() < HOUR


@with_and_without
async def test_nothing_is_left_to_the_collector(middleware: bool) -> None:
    """
    Neither the WebSocket nor its operation is part of a circle.
    """
    left: list[weakref.ref[Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = WebSocket(scope, receive, send)
        operation = Cancelable()
        async with CancelableWebSocket(websocket, operation, idle_timeout=5, keepalive=5) as socket:
            await socket.accept()
            await socket.receive_text()
        left.extend(weakref.ref(thing) for thing in (websocket, operation, socket))

    peer = websocket_peer("one")
    await peer.run(RequestCancelationMiddleware(app) if middleware else app)

    assert [reference() for reference in left] == [None] * 3
    assert peer.scope.get("cancelation_reader") is None
    token = peer.scope.get(TOKEN_KEY)
    assert token is None or token.statistics().callbacks == 0


@pytest.mark.only_on("asyncio")
@with_and_without
@pytest.mark.parametrize("number", range(1, 30))
async def test_a_native_cancel_passes_through_wherever_it_lands(middleware: bool, number: int) -> None:
    """
    Entering, within, closing and leaving; and no task is left.
    """
    import asyncio

    peer = websocket_peer("one", habits=HYPERCORN)

    async def endpoint(websocket: WebSocket) -> None:
        async with CancelableWebSocket(websocket, Cancelable(), keepalive=3) as socket:
            await socket.accept()
            await socket.send_text(await socket.receive_text())

    async def run() -> int:
        task = asyncio.current_task()
        assert task is not None
        _, waits = await cancelling_at(
            number, task.cancel, run_on(peer, serve(endpoint, middleware=middleware))
        )
        return waits

    try:
        waits = await asyncio.get_running_loop().create_task(run())
    except asyncio.CancelledError:
        pass
    else:
        assert waits < number
    assert len(closes(peer)) <= 1
