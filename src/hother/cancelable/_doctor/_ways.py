"""Ways in which a request may end before it is done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from ._answers import Ending
from ._moments import Client, Moment
from ._observation import Expectation, Fate
from ._stage import TIMEOUT, Stage

Cause: TypeAlias = Callable[[Stage, Client], Awaitable[None]]

_ENDED = frozenset({Ending.COMPLETE, Ending.TRUNCATED, Ending.NOTHING})


@dataclass(frozen=True, slots=True)
class Way:
    """A way to end, and what must come of it."""

    name: str
    title: str
    happen: Cause
    fate: Fate
    status: int | None = None  #: of the answer, if none has started
    is_awaited: bool = True  #: the client waits for its answer
    timeout: float = 0.0
    spares_background: bool = True  #: a complete response is beyond it
    may_log: bool = False
    leaves: frozenset[str] = frozenset({"returned"})
    query: str = ""
    needs: frozenset[str] = frozenset()

    def expected_at(self, moment: Moment) -> Expectation:
        """Return what must come of it at a moment."""
        spared = moment.is_complete and self.spares_background
        return Expectation(
            fate=Fate.FINISHED if spared else self.fate,
            status=self._status_at(moment),
            endings=self._endings_at(moment),
            may_log=self.may_log and not spared,
            leaves=frozenset({"returned"}) if spared else self.leaves,
        )

    def _status_at(self, moment: Moment) -> int | None:
        if moment.has_started:  # a client that stalls and leaves has not looked
            return 200 if self.is_awaited or moment.buffer is None else None
        return self.status

    def _endings_at(self, moment: Moment) -> frozenset[Ending]:
        if moment.is_complete:
            return frozenset({Ending.COMPLETE})
        if not self.is_awaited:
            return frozenset(Ending) - ({Ending.COMPLETE} if moment.has_started else frozenset())
        if moment.has_started:
            return frozenset({Ending.TRUNCATED})
        return frozenset({Ending.COMPLETE}) if self.status else _ENDED


async def play(
    stage: Stage, *, moment: Moment, way: Way, stack: str = "outermost", http2: bool = False
) -> None:
    """Bring a moment about, have it end in a way, and wait for what comes of it."""
    client = await (stage.http2 if http2 else stage.http1)(buffer=moment.buffer)
    query: dict[str, object] = {way.query: "1"} if way.query else {}
    if moment.is_complete and way.timeout:
        query["for"] = way.timeout + 0.3  # past the deadline
    await moment.bring_about(
        stage, client, stage.target(moment.handler, stack=stack, timeout=way.timeout, query=query)
    )
    stage.run.mark_cause()
    await way.happen(stage, client)
    if way.is_awaited and not moment.is_complete:
        stage.answer = await client.read(stage.missed)
    await stage.run.wait("left", stage.patience if moment.is_complete else stage.missed)


async def _close(stage: Stage, client: Client) -> None:
    client.wire.close()


async def _reset(stage: Stage, client: Client) -> None:
    client.wire.reset()


async def _half_close(stage: Stage, client: Client) -> None:
    client.wire.half_close()


async def _reset_stream(stage: Stage, client: Client) -> None:
    await client.reset()


async def _deadline(stage: Stage, client: Client) -> None:
    called = await stage.run.wait("called", stage.patience)
    if called is not None:
        stage.run.cause_at = called["at"] + TIMEOUT


async def _order(stage: Stage, client: Client, *, order: str, **query: str) -> None:
    await stage.order(order, **query)


_NATIVE = frozenset({"CancelledError", "Cancelled"})  # it is not ours to swallow

CLOSE = Way("close", "client closes", _close, Fate.DISCONNECT, is_awaited=False)
RESET = Way("reset", "client resets", _reset, Fate.DISCONNECT, is_awaited=False)
HALF_CLOSE = Way("half-close", "client half-closes", _half_close, Fate.DISCONNECT, is_awaited=False)
STREAM_RESET = Way(
    "stream-reset", "client resets the stream", _reset_stream, Fate.DISCONNECT, is_awaited=False
)
DEADLINE = Way("deadline", "deadline passes", _deadline, Fate.TIMEOUT, 504, timeout=TIMEOUT)
OPERATOR = Way(
    "operator",
    "operator cancels, in a request",
    partial(_order, order="cancel"),
    Fate.MANUAL,
    503,
    spares_background=False,
)
OPERATOR_THREAD = Way(
    "operator-thread",
    "operator cancels, in a thread",
    partial(_order, order="cancel", where="thread"),
    Fate.MANUAL,
    503,
    spares_background=False,
)
ERROR = Way(
    "error",
    "application fails",
    partial(_order, order="fail"),
    Fate.ERROR,
    500,
    spares_background=False,
    may_log=True,
    leaves=frozenset({"Deliberate"}),
)
NATIVE = Way(
    "native",
    "server cancels the task",
    partial(_order, order="native"),
    Fate.NATIVE,
    spares_background=False,
    may_log=True,
    leaves=_NATIVE,
    query="native",
)
