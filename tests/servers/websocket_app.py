"""WebSockets with the wrapper's block, at ``/with`` behind the middleware and at ``/without`` it.

The query string of a request is the key of what is recorded about it.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from hother.cancelable import Cancelable, CancelationReason
from hother.cancelable.integrations.starlette import CancelableWebSocket, RequestCancelationMiddleware
from tests.servers.recording import record
from tests.servers.tasks import count_tasks

Handler = Callable[[CancelableWebSocket, Cancelable], Awaitable[None]]


def route(path: str, handler: Handler, timeout: float | None = None, **options: Any) -> WebSocketRoute:
    """Have *handler* run in a block whose end is recorded."""

    async def endpoint(websocket: WebSocket) -> None:
        key = websocket.url.query
        operation = Cancelable(timeout=timeout, raise_on_cancel=False)
        socket = CancelableWebSocket(websocket, operation, **options)
        try:
            async with socket:
                await socket.accept()
                record("running", key=key)
                await handler(socket, operation)
        finally:
            record("ended", key=key, cause=str(operation.cancelation), code=socket.close_code)

    return WebSocketRoute(path, endpoint)


async def only_send(socket: CancelableWebSocket, operation: Cancelable) -> None:
    """Never ask whether anyone is there."""
    while True:
        await socket.send_text("tick")
        await anyio.sleep(0.01)


async def flood(socket: CancelableWebSocket, operation: Cancelable) -> None:
    """Send more than a client that does not read can take."""
    while True:
        await socket.send_bytes(bytes(65_536))


async def echo(socket: CancelableWebSocket, operation: Cancelable) -> None:
    """Send every message back."""
    async for text in socket.iter_text():
        await socket.send_text(text)


async def cancel(socket: CancelableWebSocket, operation: Cancelable) -> None:
    """Be cancelled for the reason that the client asks for, with its words."""
    reason = CancelationReason(await socket.receive_text())
    operation.cancel(reason, await socket.receive_text())
    await socket.receive_text()


async def fail(socket: CancelableWebSocket, operation: Cancelable) -> None:
    """Raise."""
    raise ZeroDivisionError("as the test asked")


async def end(socket: CancelableWebSocket, operation: Cancelable) -> None:
    """Return."""


async def leftovers(request: Request) -> JSONResponse:
    """Count what is in the process besides this request."""
    gc.collect()
    counted = {"Cancelable", "CancelableWebSocket", "WebSocket", "Watch", "Block"}
    objects = [type(thing).__name__ for thing in gc.get_objects()]
    return JSONResponse({"tasks": count_tasks(), **{name: objects.count(name) for name in counted}})


ROUTES: list[BaseRoute] = [
    route("/only-send", only_send),
    route("/flood", flood, send_timeout=0.3),
    route("/idle", echo, idle_timeout=0.3),
    route("/keepalive", echo, keepalive=0.05, keepalive_message="still here"),
    route("/deadline", echo, timeout=0.2),
    route("/cancel", cancel, close_codes={CancelationReason.CONDITION: 4321}),
    route("/fail", fail),
    route("/end", end),
    Route("/leftovers", leftovers),
]

app = Starlette(
    routes=[
        Mount("/with", RequestCancelationMiddleware(Starlette(routes=ROUTES))),
        Mount("/without", Starlette(routes=ROUTES)),
    ]
)
