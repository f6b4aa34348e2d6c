"""WebSockets; the frames are wsproto's."""

from __future__ import annotations

from contextlib import suppress
from typing import final

import anyio
import wsproto
from wsproto.events import AcceptConnection, CloseConnection, Event, RejectConnection, Request, TextMessage
from wsproto.utilities import LocalProtocolError

from ._sockets import Wire


@final
class Client:
    """A client with a WebSocket."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.close_code: int | None = None
        self._frames = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)

    async def open(self, target: str, *, seconds: float = 5.0) -> None:
        """Open the WebSocket.

        Raises:
            EOFError: If the server does not want it.
        """
        await self.wire.send(self._frames.send(Request(host="localhost", target=target)))
        if not isinstance(await self.next(seconds), AcceptConnection):
            raise EOFError("the WebSocket was not accepted")

    async def send_text(self, text: str) -> None:
        """Send a message."""
        await self.wire.send(self._frames.send(TextMessage(data=text)))

    async def say_goodbye(self, code: int, reason: str) -> None:
        """Send a close frame."""
        await self.wire.send(self._frames.send(CloseConnection(code=code, reason=reason)))

    async def next(self, seconds: float) -> Event | None:
        """Return what comes next, ``None`` if nothing does."""
        with anyio.move_on_after(seconds):
            try:
                while True:
                    for event in self._frames.events():
                        if isinstance(
                            event, (AcceptConnection, RejectConnection, TextMessage, CloseConnection)
                        ):
                            return event
                    self._frames.receive_data(await self.wire.receive() or None)
            except (OSError, LocalProtocolError):
                pass
        return None

    async def _answer(self, event: CloseConnection) -> None:
        with suppress(OSError, LocalProtocolError):  # it was the answer to ours
            await self.wire.send(self._frames.send(event.response()))

    def close(self) -> None:
        """Leave."""
        self.wire.close()

    async def read_to_close(self, seconds: float) -> int | None:
        """Wait for the end, and return its code."""
        with anyio.move_on_after(seconds):
            while (event := await self.next(seconds)) is not None:
                if isinstance(event, CloseConnection):
                    self.close_code = event.code
                    await self._answer(event)
                    break
        return self.close_code
