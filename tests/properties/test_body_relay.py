"""Any body, in any parts, read at any pace, by any mix of readers and onlookers: the same bytes, once."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import anyio
from anyio import CancelScope, create_task_group
from hypothesis import given, settings
from hypothesis import strategies as st

from hother.cancelable.asgi import Grace, RequestCancelationMiddleware
from hother.cancelable.asgi._receive import MESSAGE_COST
from hother.cancelable.asgi._types import Message, Receive, Scope, Send
from tests.asgi_peer import ALL_HABITS, Habits, Peer

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
LAST: Message = {"type": "http.response.body", "body": b"done"}

parts = st.lists(st.binary(max_size=1000), min_size=1, max_size=12)
pauses = st.lists(st.sampled_from([0, 0, 1, 3]), min_size=1, max_size=12)
read_aheads = st.sampled_from([0, 1, MESSAGE_COST, MESSAGE_COST + 1, 2000, 10**9])
habits_of_servers = st.sampled_from(ALL_HABITS)


def pause_at(pauses: Sequence[int], number: int) -> int:
    return pauses[number % len(pauses)]


async def probe(receive: Receive) -> Message | None:
    """Ask as Starlette's ``is_disconnected()`` does: without waiting."""
    with CancelScope() as scope:
        scope.cancel()
        return await receive()
    return None


async def look_on(receive: Receive, pauses: Sequence[int]) -> None:
    """Ask again and again whether the client has left: what comes instead is thrown away."""
    for pause in pauses:
        await anyio.sleep(pause)
        assert await probe(receive) is None


@given(
    parts=parts,
    client_pauses=pauses,
    reader_pauses=pauses,
    patience=st.sampled_from([1, 2, inf]),
    read_ahead=read_aheads,
    habits=habits_of_servers,
    expect=st.booleans(),
    onlookers=st.lists(pauses, max_size=2),
)
@settings(max_examples=60)
async def test_a_body_arrives_as_it_was_sent(
    parts: list[bytes],
    client_pauses: list[int],
    reader_pauses: list[int],
    patience: float,
    read_ahead: int,
    habits: Habits,
    expect: bool,
    onlookers: list[list[int]],
) -> None:
    """
    All parts, in order, each once; and never more of them in memory than allowed.
    """
    received: list[bytes] = []
    costs = [MESSAGE_COST + len(part) for part in parts]
    waited: list[int] = []

    async def read(receive: Receive) -> None:
        more = True
        while more:
            await anyio.sleep(pause_at(reader_pauses, len(received)))
            waited.append(sum(costs[len(received) : peer.received][:-1]))
            with anyio.move_on_after(patience):
                message = await receive()
                received.append(message["body"])
                more = message["more_body"]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with create_task_group() as tasks:
            for pauses in onlookers:
                tasks.start_soon(look_on, receive, pauses)
            await read(receive)
            tasks.cancel_scope.cancel()
        await send(START)
        await send(LAST)

    headers = [("Expect", "100-continue")] if expect else []
    peer = Peer(more=True, habits=habits, headers=headers)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, RequestCancelationMiddleware(app, read_ahead=read_ahead))
        for number, part in enumerate(parts):
            await anyio.sleep(pause_at(client_pauses, number))
            peer.feed(part, more=number < len(parts) - 1)

    assert received == parts
    assert peer.complete
    assert not peer.scope["cancelation_token"].is_cancelled
    assert max(waited) <= read_ahead  # and one message more


@given(parts, st.integers(0, 12), pauses, read_aheads, habits_of_servers)
@settings(max_examples=60)
async def test_what_arrives_before_a_disconnect_is_a_beginning_of_the_body(
    parts: list[bytes], leave_after: int, reader_pauses: list[int], read_ahead: int, habits: Habits
) -> None:
    """
    Whole parts, in order; then the disconnect, for ever.
    """
    messages: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while len(messages) < len(parts) + 3:
            await anyio.sleep(pause_at(reader_pauses, len(messages)))
            messages.append(await receive())

    peer = Peer(more=True, habits=habits)
    middleware = RequestCancelationMiddleware(app, read_ahead=read_ahead, on_disconnect=Grace(1e6))
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, middleware)
        for part in parts[:leave_after]:
            peer.feed(part, more=True)
            await anyio.sleep(1)
        peer.disconnect()

    kinds = [message["type"] for message in messages]
    bodies = [message["body"] for message in messages if message["type"] == "http.request"]
    assert bodies == parts[: len(bodies)]
    assert kinds == sorted(kinds, reverse=True)
    assert kinds[-1] == "http.disconnect"
