"""HTTP/2 without TLS, by prior knowledge; the frames are h2's."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import final

import anyio
import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

from ._answers import Answer, Ending
from ._sockets import Wire


@final
class Client:
    """A client that makes one request, on a connection of its own."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.answer = Answer()
        self.stream = 0
        self._frames = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self._to_send = 0  # of the body, in bytes
        self._is_over = False

    async def open(self) -> None:
        """Send what opens a connection."""
        self._frames.initiate_connection()
        await self._flush()

    async def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        *,
        length: int | None = None,
    ) -> None:
        """Send the head of a request. The arguments are those of HTTP/1.1's."""
        self._to_send = length or 0
        self.stream = self._frames.get_next_available_stream_id()
        fields = {":method": method, ":path": target, ":scheme": "http", ":authority": "localhost"}
        lower = {name.lower(): value for name, value in (headers or {}).items()}
        self._frames.send_headers(self.stream, list({**fields, **lower}.items()), end_stream=not length)
        await self._flush()

    async def send_body(self, data: bytes) -> None:
        """Send a body, or a part of it, as fast as the server lets us."""
        view = memoryview(data)
        while view:
            room = min(
                self._frames.local_flow_control_window(self.stream), self._frames.max_outbound_frame_size
            )
            if not room:
                await self._receive()
                continue
            piece = bytes(view[:room])
            self._to_send -= len(piece)
            self._frames.send_data(self.stream, piece, end_stream=not self._to_send)
            view = view[room:]
            await self._flush()

    async def reset(self, stream: int | None = None) -> None:
        """Reset a stream, the last one by default, if it is not over; the connection stays."""
        with suppress(h2.exceptions.StreamClosedError):
            self._frames.reset_stream(stream or self.stream, h2.errors.ErrorCodes.CANCEL)
        await self._flush()

    async def read(self, seconds: float, *, until: int | None = None) -> Answer:
        """Read the answer. The arguments are those of HTTP/1.1's."""
        self.answer.ending = Ending.WAITING
        with anyio.move_on_after(seconds):
            try:
                while not self._is_over and (until is None or len(self.answer.body) < until):
                    await self._receive()
            except (OSError, EOFError, h2.exceptions.ProtocolError):
                self.answer.ending = Ending.NOTHING if self.answer.status is None else Ending.TRUNCATED
        return self.answer

    def close(self) -> None:
        """Leave."""
        self.wire.close()

    async def _flush(self) -> None:
        await self.wire.send(self._frames.data_to_send())

    async def _receive(self) -> None:
        data = await self.wire.receive()
        if not data:
            raise EOFError
        for event in self._frames.receive_data(data):
            self._take(event)
        await self._flush()

    def _take(self, event: h2.events.Event) -> None:
        if self._is_over or getattr(event, "stream_id", None) != self.stream:
            return  # a reset that follows the end says only that the rest of the request is not wanted
        if isinstance(event, h2.events.ResponseReceived):
            headers = dict(event.headers or ())
            self.answer.headers = {_text(name): _text(value) for name, value in headers.items()}
            self.answer.status = int(self.answer.headers[":status"])
        elif isinstance(event, h2.events.DataReceived):
            self.answer.body += event.data or b""
            self._frames.acknowledge_received_data(event.flow_controlled_length or 0, self.stream)
        elif isinstance(event, h2.events.StreamEnded):
            self.answer.ending, self._is_over = Ending.COMPLETE, True
        elif isinstance(event, h2.events.StreamReset):
            none = self.answer.status is None
            self.answer.ending, self._is_over = (Ending.NOTHING if none else Ending.TRUNCATED), True


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode()
