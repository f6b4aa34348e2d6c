"""An application that does not read the bodies of its requests for a while."""

from __future__ import annotations

import anyio

from hother.cancelable.asgi import RequestCancelationMiddleware
from hother.cancelable.asgi._types import Receive, Scope, Send


async def unread(scope: Scope, receive: Receive, send: Send) -> None:
    """Work, and answer."""
    if scope["type"] == "lifespan":
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})
        return
    await anyio.sleep(1.5)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


app = RequestCancelationMiddleware(unread)
