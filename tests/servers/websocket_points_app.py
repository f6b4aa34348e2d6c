"""WebSockets that use all that `CancelableWebSocket` has, behind the middleware and without it.

The query string of a request is the key of what is recorded about it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Mount, WebSocketRoute
from starlette.websockets import WebSocket

from hother.cancelable import Cancelable
from hother.cancelable.integrations.starlette import CancelableWebSocket, RequestCancelationMiddleware
from tests.servers.recording import record

Handler = Callable[[CancelableWebSocket], Awaitable[None]]


def route(path: str, handler: Handler, *, is_quiet: bool = True, **options: Any) -> WebSocketRoute:
    """Have *handler* run in a block, not accepted yet, whose end is recorded."""

    async def endpoint(websocket: WebSocket) -> None:
        key = websocket.url.query
        operation = Cancelable(raise_on_cancel=not is_quiet)
        socket = CancelableWebSocket(websocket, operation, **options)
        try:
            async with socket:
                await handler(socket)
        finally:
            record("ended", key=key, cause=str(operation.cancelation), code=socket.close_code)

    return WebSocketRoute(path, endpoint)


async def kinds(socket: CancelableWebSocket) -> None:
    """Receive and send every kind of message, and tell how the connection was made."""
    states = [socket.client_state.name, socket.application_state.name]
    await socket.accept(subprotocol=socket.scope["subprotocols"][-1], headers=[(b"x-place", b"here")])
    states += [socket.client_state.name, socket.application_state.name]
    await socket.send_json(states)
    await socket.send_text(await socket.receive_text() + "!")
    await socket.send_bytes(await socket.receive_bytes() + b"!")
    await socket.send_json([await socket.receive_json()])
    await socket.send_json([await socket.receive_json(mode="binary")], mode="binary")


async def iterate(socket: CancelableWebSocket) -> None:
    """Send back what each of the iterators gives, two messages each."""
    await socket.accept()
    for name, iterator in (
        ("text", socket.iter_text()),
        ("bytes", socket.iter_bytes()),
        ("json", socket.iter_json()),
    ):
        for _ in range(2):
            await socket.send_text(f"{name} {await anext(iterator)!r}")
    rest = [text async for text in socket.iter_text()]
    record("rest", key=socket.url.query, rest=rest)


async def deny(socket: CancelableWebSocket) -> None:
    """Answer with a response of its own."""
    await socket.send_denial_response(PlainTextResponse("members only", 403))


async def deny_cancelled(socket: CancelableWebSocket) -> None:
    """Be cancelled before the connection is made."""
    socket._cancelable.cancel(message="closed for today")
    await socket.send_denial_response(PlainTextResponse("never sent", 403))


async def slow_reader(socket: CancelableWebSocket) -> None:
    """Read much more slowly than the client writes, and count what has come."""
    await socket.accept()
    await anyio.sleep(0.3)
    numbers = [int(text.partition(" ")[0]) async for text in socket.iter_text()]
    record("numbers", key=socket.url.query, are_all=numbers == list(range(len(numbers))), count=len(numbers))


async def late_send(websocket: WebSocket) -> None:
    """Send, without a block, to a client that has left."""
    socket = CancelableWebSocket(websocket, Cancelable())
    await socket.accept()
    record("running", key=websocket.url.query)
    try:
        while True:
            await socket.send_text("tick")
            await anyio.sleep(0.01)
    except BaseException as error:
        record("ended", key=websocket.url.query, error=type(error).__name__)
        raise


async def busy(socket: CancelableWebSocket) -> None:
    """Neither receive nor send."""
    await socket.accept()
    record("running", key=socket.url.query)
    await anyio.sleep_forever()


async def idle_or_total(websocket: WebSocket) -> None:
    """Have both a limit for silence and one for all."""
    async with CancelableWebSocket(websocket, Cancelable(timeout=0.6), idle_timeout=0.3) as socket:
        await socket.accept()
        async for text in socket.iter_text():
            await socket.send_text(text)


async def plain(websocket: WebSocket) -> None:
    """Know nothing of cancelation."""
    await websocket.accept()
    record("running", key=websocket.url.query)
    try:
        await anyio.sleep_forever()
    finally:
        record("ended", key=websocket.url.query)


ROUTES: list[BaseRoute] = [
    route("/kinds", kinds),
    route("/iterate", iterate),
    route("/deny", deny),
    route("/deny-cancelled", deny_cancelled, is_quiet=False),
    route("/slow-reader", slow_reader, read_ahead=1000),
    route("/busy", busy),
    WebSocketRoute("/late-send", late_send),
    WebSocketRoute("/idle-or-total", idle_or_total),
    WebSocketRoute("/plain", plain),
]

app = Starlette(
    routes=[
        Mount("/with", RequestCancelationMiddleware(Starlette(routes=ROUTES))),
        Mount("/without", Starlette(routes=ROUTES)),
    ]
)
