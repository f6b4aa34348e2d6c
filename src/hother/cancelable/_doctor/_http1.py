"""HTTP/1.1: what is sent is written by hand, what comes is read by h11."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, final

import anyio
import h11

from ._answers import Answer, Ending
from ._sockets import Wire


@final
class Client:
    """A client, with a connection of its own."""

    def __init__(self, wire: Wire, headers: Mapping[str, str] | None = None) -> None:
        self.wire = wire
        self.answer = Answer()
        self._headers = headers or {}
        self._parser = h11.Connection(h11.CLIENT)

    async def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        *,
        length: int | None = None,
    ) -> None:
        """Send the head of a request.

        Args:
            method: The method.
            target: The path.
            headers: Its headers.
            length: Of the body, which is to follow; ``None`` for no body, or for one in chunks.
        """
        fields = {"Host": "localhost", **self._headers, **(headers or {})}
        if length is not None:
            fields["Content-Length"] = str(length)
        self._parser.send(h11.Request(method=method, target=target, headers=list(fields.items())))
        if not {"content-length", "transfer-encoding"} & {name.lower() for name in fields}:
            self._parser.send(h11.EndOfMessage())
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        await self.wire.send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    async def send_body(self, data: bytes) -> None:
        """Send a body, or a part of it, as it is."""
        await self.wire.send(data)

    async def send_chunk(self, data: bytes) -> None:
        """Send a chunk of a body; an empty one is the last."""
        await self.wire.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def read(self, seconds: float, *, until: int | None = None) -> Answer:
        """Read the answer.

        Args:
            seconds: How long to wait for it.
            until: How many bytes of its body are enough, 0 for an interim answer; all of it by default.
        """
        self.answer.ending = Ending.WAITING
        with anyio.move_on_after(seconds):
            try:
                while not await self._read_event(until):
                    pass
            except (OSError, h11.RemoteProtocolError):
                self.answer.ending = Ending.NOTHING if self.answer.status is None else Ending.TRUNCATED
        return self.answer

    def close(self) -> None:
        """Leave."""
        self.wire.close()

    async def _read_event(self, until: int | None) -> bool:
        event = self._parser.next_event()
        if event is h11.NEED_DATA:
            self._parser.receive_data(await self.wire.receive())
        elif isinstance(event, h11.InformationalResponse):
            self.answer.interim = event.status_code
            return until == 0
        elif isinstance(event, h11.Response):
            self.answer.status = event.status_code
            self.answer.headers = {name.decode(): value.decode() for name, value in event.headers}
        elif isinstance(event, h11.Data):
            self.answer.body += event.data
            return until is not None and len(self.answer.body) >= until
        else:  # the end of the message: of what else there is, h11 makes errors
            self.answer.ending = Ending.COMPLETE
            return True
        return False


async def ask(port: int, order: str, query: Mapping[str, str] | None = None, *, seconds: float = 10.0) -> Any:
    """Give the witness an order, and return what it says.

    Raises:
        OSError: If nobody listens there.
        EOFError: If there was no proper answer.
    """
    client = Client(await Wire.open(port))
    try:
        parameters = "&".join(f"{name}={value}" for name, value in (query or {}).items())
        await client.request("GET", f"/__control__/{order}?{parameters}", {"Connection": "close"})
        answer = await client.read(seconds)
    finally:
        client.close()
    with suppress(ValueError):
        if answer.ending is Ending.COMPLETE and answer.status == 200:
            return json.loads(answer.body)
    raise EOFError(f"{order} was not answered: {answer.status}, {answer.ending}")
