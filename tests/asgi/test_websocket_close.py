"""Closing a WebSocket on a server that closes only while nobody receives, as Granian does."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import anyio
import pytest

from hother.cancelable.asgi import RequestCancelationMiddleware


@pytest.mark.xfail(reason="the reader is in receive() while the close is sent", strict=True)
async def test_a_websocket_is_closed_while_nobody_receives() -> None:
    """
    The handler was stopped, so that no message is wanted any more.
    """
    receiving = 0
    sent: list[str] = []
    connected = False

    async def receive() -> dict[str, Any]:
        nonlocal receiving, connected
        if not connected:
            connected = True
            return {"type": "websocket.connect"}
        receiving += 1
        try:
            await anyio.sleep_forever()
        finally:
            receiving -= 1
        raise AssertionError

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "websocket.close" and receiving:
            await anyio.sleep_forever()
        sent.append(message["type"])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await anyio.sleep(0.1)  # the reader waits for what the client says
        scope["cancelation_token"].cancel()
        await anyio.sleep_forever()

    with anyio.move_on_after(60):
        await RequestCancelationMiddleware(app)({"type": "websocket", "headers": []}, receive, send)

    assert sent == ["websocket.accept", "websocket.close"]
