"""A WebSocket whose calls end when its operation is cancelled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar, final

import anyio
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from .._core._errors import DisconnectCancelation
from .._scope import Cancelable

T = TypeVar("T")

CLOSING_BUDGET = 5.0
"""How long sending the close frame may take, in seconds."""


@final
class CancelableWebSocket:
    """A WebSocket whose calls end when its operation is cancelled.

    A call that waits is interrupted, in whatever task it waits, and raises the operation's
    `CancelationError`; so does every later call, but for `close`. Inside the operation's own block
    the call is interrupted by the block, which then raises that error. When the client has left, the
    messages that arrived before can still be received; then Starlette's ``WebSocketDisconnect`` is raised.

    Args:
        websocket: Starlette's (or FastAPI's) WebSocket.
        cancelable: The operation. It need not be entered; its timeout is each call's, then.

    Raises:
        TypeError: If an argument is of the wrong kind.
    """

    def __init__(self, websocket: WebSocket, cancelable: Cancelable) -> None:
        if not isinstance(websocket, WebSocket):
            raise TypeError(f"websocket must be a Starlette WebSocket, got {websocket!r}")
        if not isinstance(cancelable, Cancelable):
            raise TypeError(f"cancelable must be a Cancelable, got {cancelable!r}")
        self._websocket = websocket
        self._cancelable = cancelable

    async def accept(
        self, subprotocol: str | None = None, headers: Iterable[tuple[bytes, bytes]] | None = None
    ) -> None:
        """Accept the connection.

        Raises:
            CancelationError: If the operation is cancelled.
        """
        await self._run(self._websocket.accept, subprotocol, headers)

    async def send_text(self, data: str) -> None:
        """Send a text message.

        Raises:
            CancelationError: If the operation is cancelled.
        """
        await self._run(self._websocket.send_text, data)

    async def send_json(self, data: Any, mode: str = "text") -> None:
        """Send *data* as JSON, in a ``"text"`` or ``"binary"`` message.

        Raises:
            CancelationError: If the operation is cancelled.
        """
        await self._run(self._websocket.send_json, data, mode)

    async def receive_text(self) -> str:
        """Wait for a text message. A call that is interrupted takes none.

        Raises:
            CancelationError: If the operation is cancelled.
            starlette.websockets.WebSocketDisconnect: If the client has left.
        """
        return await self._receive(self._websocket.receive_text)

    async def receive_json(self, mode: str = "text") -> Any:
        """Wait for a JSON document. A call that is interrupted takes none.

        Args:
            mode: Whether it comes in a ``"text"`` or a ``"binary"`` message.

        Raises:
            CancelationError: If the operation is cancelled.
            starlette.websockets.WebSocketDisconnect: If the client has left.
        """
        return await self._receive(self._websocket.receive_json, mode)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection, even if the operation is cancelled. Quiet if it is closed already.

        Args:
            code: The close code (RFC 6455, 7.4).
            reason: For humans; at most 123 bytes.
        """
        websocket = self._websocket
        if WebSocketState.DISCONNECTED not in {websocket.client_state, websocket.application_state}:
            with anyio.move_on_after(CLOSING_BUDGET, shield=True), suppress(WebSocketDisconnect):
                await websocket.close(code, reason)

    async def _receive(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        try:
            return await self._run(function, *args)
        except DisconnectCancelation:
            if self._websocket.client_state is WebSocketState.DISCONNECTED:
                raise  # Starlette has said so once
            # What arrived before the client left has not been lost, and Starlette's own error tells
            # the close code: whatever is there already, without waiting.
            with anyio.CancelScope() as no_time:
                no_time.cancel()
                return await function(*args)
            raise

    async def _run(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        operation = self._cancelable.follow()
        operation.check()
        async with operation:
            return await function(*args)
