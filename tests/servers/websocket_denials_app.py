"""WebSockets that are cancelled before they are accepted: by a block, a decorator, or a plain operation."""

from __future__ import annotations

import anyio
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, WebSocketRoute
from starlette.websockets import WebSocket

from hother.cancelable import Cancelable
from hother.cancelable.integrations.starlette import (
    CancelableWebSocket,
    RequestCancelationMiddleware,
    with_cancelation,
)


def blocked(*, is_quiet: bool) -> WebSocketRoute:
    """Cancel the operation of a block, which is then left quietly, or raises."""

    async def endpoint(websocket: WebSocket) -> None:
        operation = Cancelable(raise_on_cancel=not is_quiet)
        async with CancelableWebSocket(websocket, operation):
            operation.cancel(message="closed for today")
            await anyio.sleep(60)

    return WebSocketRoute("/quiet" if is_quiet else "/raises", endpoint)


@with_cancelation(timeout=0.05)
async def out_of_time(websocket: WebSocket) -> None:
    """Take too long."""
    await anyio.sleep(60)


ROUTES: list[BaseRoute] = [
    blocked(is_quiet=True),
    blocked(is_quiet=False),
    WebSocketRoute("/out-of-time", out_of_time),
]

app = Starlette(
    routes=[
        Mount("/with", RequestCancelationMiddleware(Starlette(routes=ROUTES))),
        Mount("/without", Starlette(routes=ROUTES)),
    ]
)
