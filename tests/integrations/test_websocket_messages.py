"""Every message of a WebSocket reaches its handler once, in order, however its receiving is interrupted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio import CancelScope, create_task_group
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st
from starlette.websockets import WebSocket

from hother.cancelable import Cancelable
from hother.cancelable.integrations.starlette import CancelableWebSocket
from tests.asgi_peer import ALL_HABITS, GUNICORN, HYPERCORN, UVICORN, Habits
from tests.integrations.test_websocket import HOUR, serve, websocket_peer

TIGHT = 1  #: a reader that takes hardly anything ahead, in bytes

with_and_without = pytest.mark.parametrize("middleware", [True, False], ids=["with middleware", "without"])


async def turns(number: int) -> None:
    for _ in range(number):
        await checkpoint()


# --- A message and an interruption that meet


@pytest.mark.parametrize("habits", [UVICORN, HYPERCORN, GUNICORN], ids=str)
@pytest.mark.parametrize("tight", [False, True], ids=["room", "no room"])
@pytest.mark.parametrize("in_block", [True, False], ids=["block", "no block"])
async def test_a_call_that_is_interrupted_as_a_message_arrives_takes_it_or_leaves_it(
    habits: Habits, tight: bool, in_block: bool
) -> None:
    """
    Up to so many turns of the loop before, at the same moment, or so many after.
    """
    options: dict[str, Any] = {"read_ahead": TIGHT} if tight else {}

    async def meet(socket: CancelableWebSocket, arrival: int, interruption: int) -> None:
        received: list[str] = []
        scope = CancelScope()

        async def arrive() -> None:
            await turns(arrival)
            peer.feed("one")
            peer.feed("two")

        async def interrupt() -> None:
            await turns(interruption)
            scope.cancel()

        async with create_task_group() as tasks:
            tasks.start_soon(arrive)
            tasks.start_soon(interrupt)
            with scope:
                received.append(await socket.receive_text())
        while len(received) < 2:
            received.append(await socket.receive_text())
        outcomes.append(received)

    async def endpoint(websocket: WebSocket) -> None:
        operation = Cancelable()
        socket = CancelableWebSocket(websocket, operation, **options)
        async with socket if in_block else operation:
            await socket.accept()
            for arrival in range(7):
                for interruption in range(arrival + 7):
                    await meet(socket, arrival, interruption)

    outcomes: list[list[str]] = []
    peer = websocket_peer(habits=habits)
    await peer.run(serve(endpoint, **options))

    assert outcomes == [["one", "two"]] * sum(arrival + 7 for arrival in range(7))


# --- Whatever happens when

Call = Callable[[CancelableWebSocket, list[str], int], Awaitable[None]]


async def in_time(socket: CancelableWebSocket, received: list[str], limit: int) -> None:
    with anyio.move_on_after(limit):
        received.append(await socket.receive_text())


async def at_once(socket: CancelableWebSocket, received: list[str], limit: int) -> None:
    with CancelScope() as scope:
        scope.cancel()
        received.append(await socket.receive_text())


async def in_an_operation(socket: CancelableWebSocket, received: list[str], limit: int) -> None:
    async with Cancelable(timeout=limit, raise_on_cancel=False):
        received.append(await socket.receive_text())


async def in_a_task(socket: CancelableWebSocket, received: list[str], limit: int) -> None:
    async def receive() -> None:
        received.append(await socket.receive_text())

    async with create_task_group() as tasks:
        tasks.start_soon(receive)
        await anyio.sleep(limit)
        tasks.cancel_scope.cancel()


async def do_something_else(socket: CancelableWebSocket, received: list[str], limit: int) -> None:
    await anyio.sleep(limit)


CALLS: tuple[Call, ...] = (in_time, at_once, in_an_operation, in_a_task, do_something_else)


@given(
    arrivals=st.lists(st.integers(0, 4), max_size=12),
    calls=st.lists(st.tuples(st.sampled_from(CALLS), st.integers(0, 4)), max_size=12),
    ending=st.sampled_from(["leaves", "closes early", "is read to its end"]),
    tight=st.booleans(),
    middleware=st.booleans(),
    habits=st.sampled_from(ALL_HABITS),
)
async def test_no_message_is_lost_doubled_or_reordered(
    arrivals: list[int],
    calls: list[tuple[Call, int]],
    ending: str,
    tight: bool,
    middleware: bool,
    habits: Habits,
) -> None:
    """
    Messages come from another task, often at the very moment at which a call is out of time.

    Who closes with messages unread has had the first ones; who reads on after a client has left has all.
    """
    sent: list[str] = []
    received: list[str] = []
    options: dict[str, Any] = {"read_ahead": TIGHT} if tight else {}

    async def write() -> None:
        for pause in arrivals:
            await anyio.sleep(pause)
            sent.append(str(len(sent)))
            peer.feed(sent[-1])

    async def endpoint(websocket: WebSocket) -> None:
        socket = CancelableWebSocket(websocket, Cancelable(raise_on_cancel=False), **options)
        async with socket:
            await socket.accept()
            async with create_task_group() as tasks:
                tasks.start_soon(write)
                for call, limit in calls:
                    await call(socket, received, limit)
            if ending == "closes early":
                return
            if ending == "leaves" and not tight:  # else its leaving is in the line behind what nobody reads
                peer.disconnect()
                await anyio.sleep(HOUR)
            received.extend([await socket.receive_text() for _ in sent[len(received) :]])
        async for text in socket.iter_text():
            received.append(text)

    peer = websocket_peer(habits=habits)
    await peer.run(serve(endpoint, middleware=middleware, **(options if middleware else {})))

    assert received == (sent[: len(received)] if ending == "closes early" else sent)
    assert peer.violations == []
    assert anyio.current_time() < HOUR
