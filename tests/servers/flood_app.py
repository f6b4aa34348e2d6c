"""A bare application that sends as fast as its server takes it: no middleware, nothing of ours."""

from __future__ import annotations

from hother.cancelable.asgi._types import Receive, Scope, Send
from tests.servers.recording import record

PIECE = bytes(65_536)
MUCH = 128 * 2**20


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Flood the client, and record how much the server has taken, again and again."""
    if scope["type"] == "lifespan":
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})
        return
    key = scope["query_string"].decode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for number in range(MUCH // len(PIECE)):
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
        if number in {0, MUCH // len(PIECE) - 1}:
            record("taken", key=f"{key}-{number}", version=scope["http_version"])
