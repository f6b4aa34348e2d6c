"""The stage: one run of one scenario on one server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, final

from . import _http1, _http2, _websocket
from ._answers import Answer
from ._journal import Journal, Run
from ._observation import Observation
from ._process import Process
from ._sockets import Wire

TIMEOUT = 0.5
"""The deadline of stacks that have one, in seconds."""

PATIENCE = 2.0
"""How long anything that must happen soon may take, in seconds."""


class Missed(Exception):
    """What a scenario needs has not happened."""


@final
class Stage:
    """What a scenario plays with.

    Args:
        process: The server.
        journal: Where it tells what happens.
        run: The request that counts.
        side: ``""`` for the application with the middleware, ``"bare"`` for the one without it.
        prefix: What comes before the handler's name in a path, instead of the stack and the timeout.
        headers: What every request of ours has to bring.
    """

    patience: ClassVar[float] = PATIENCE
    missed: ClassVar[float] = 1.5
    """How long a handler that runs on is waited for, and an answer that does not come, in seconds."""

    def __init__(
        self,
        process: Process,
        journal: Journal,
        run: Run,
        side: str = "",
        *,
        prefix: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.process = process
        self.journal = journal
        self.run = run
        self.side = side
        self.seen = Observation()
        self.answer = Answer()
        self._prefix = prefix
        self._headers = headers
        self.expects_request_only = False  #: not by its handler, of which nobody may hear
        self._wires: list[Wire] = []

    @property
    def is_bare(self) -> bool:
        """Whether this is the application without the middleware."""
        return self.side == "bare"

    def target(
        self,
        handler: str,
        *,
        stack: str = "outermost",
        timeout: float = 0,
        run: Run | None = None,
        query: Mapping[str, object] | None = None,
    ) -> str:
        """Return the path of a handler."""
        parameters = {"run": (run or self.run).name, "timeout": timeout, **(query or {})}
        place = self._prefix or f"/{self.side or stack}/{timeout:g}"
        return f"{place}/{handler}?" + "&".join(f"{name}={value}" for name, value in parameters.items())

    async def http1(self, *, buffer: int | None = None) -> _http1.Client:
        """Connect with HTTP/1.1."""
        client = _http1.Client(await self._connect(buffer), self._headers)
        self.answer = client.answer
        return client

    async def http2(self, *, buffer: int | None = None) -> _http2.Client:
        """Connect with HTTP/2."""
        client = _http2.Client(await self._connect(buffer))
        await client.open()
        self.answer = client.answer
        return client

    async def websocket(self, target: str) -> _websocket.Client:
        """Open a WebSocket.

        Raises:
            EOFError: If the server does not want it.
        """
        client = _websocket.Client(await self._connect(None))
        await client.open(target)
        return client

    async def _connect(self, buffer: int | None) -> Wire:
        wire = await Wire.open(self.process.port, buffer=buffer)
        self._wires.append(wire)
        return wire

    async def order(self, order: str, **query: str) -> Any:
        """Give the witness an order about the run."""
        return await _http1.ask(self.process.port, order, {"run": self.run.name, **query})

    async def wait(self, event: str, seconds: float | None = None) -> None:
        """Wait for something without which there is no going on.

        Raises:
            Missed: If it does not happen.
        """
        if await self.run.wait(event, self.patience if seconds is None else seconds) is None:
            raise Missed(event)

    def note(self, kind: str, sentence: str) -> None:
        """Take note of a problem."""
        self.seen.notes.append((kind, sentence))

    def close(self) -> None:
        """Close all connections."""
        for wire in self._wires:
            wire.close()

    def observe(self) -> Observation:
        """Put together what was seen."""
        seen = self.seen
        seen.began = self.run.find("began") is not None
        if (ended := self.run.find("ended")) is not None:
            seen.how, seen.reason = ended["how"], ended["reason"]
        if (left := self.run.find("left")) is not None:
            seen.left = left["how"]
            if left.get("callbacks"):
                seen.behind["callbacks"] = left["callbacks"]
        last = left if self.expects_request_only else ended or left
        if last is not None and self.run.cause_at is not None:
            seen.after = max(0.0, last["at"] - self.run.cause_at)
        seen.status, seen.size, seen.ending = self.answer.status, len(self.answer.body), self.answer.ending
        return seen
