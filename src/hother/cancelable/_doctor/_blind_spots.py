"""What cannot be seen everywhere, and what a crowd that leaves at once leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import anyio

from ._http1 import ask
from ._observation import Expectation, Fate
from ._scenario import Scenario
from ._stage import Stage

_MEBIBYTE = 2**20
_CROWD = 50
_IDLE = 0.05  # seconds of work that an idle process may do in _LOOK
_LOOK = 0.5
_UNREAD = {"reads": "no"}


def blind_spots() -> Iterator[Scenario]:
    """Yield all of these scenarios."""
    gone = Expectation(Fate.DISCONNECT)
    yield Scenario(
        "Blind spots", "blind/pipelined", "client closes behind a second request", _pipelined, gone
    )
    yield Scenario(
        "Blind spots", "blind/unread", "client closes behind 8 MiB that nobody reads", _unread, gone
    )
    yield Scenario(
        "Blind spots",
        "blind/stream-unread",
        "HTTP/2 reset behind another stream's unread body",
        _stream,
        gone,
        frozenset({"http/2"}),
    )


def crowds() -> Iterator[Scenario]:
    """Yield the scenario about a crowd."""
    yield Scenario(
        "Crowds",
        "crowd/close",
        f"{_CROWD} clients close at once, and the server is idle",
        _crowd,
        Expectation(Fate.DISCONNECT, within=1.0),
    )


async def _pipelined(stage: Stage) -> None:
    client = await stage.http1()
    target = stage.target("handler")
    await client.request("GET", target)
    await stage.wait("began")
    await client.wire.send(b"GET /__control__/ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await anyio.sleep(0.1)
    stage.run.mark_cause()
    client.close()
    await stage.run.wait("left", stage.missed)


async def _unread(stage: Stage) -> None:
    client = await stage.http1()
    await client.request("POST", stage.target("handler", query=_UNREAD), length=8 * _MEBIBYTE)
    with anyio.move_on_after(0.5):
        await client.send_body(bytes(8 * _MEBIBYTE))
    await stage.run.wait("began", stage.patience)
    stage.run.mark_cause()
    client.close()
    await stage.run.wait("left", stage.missed)


async def _stream(stage: Stage) -> None:
    """Two streams of one connection: the body of one fills what the server keeps for the application."""
    client = await stage.http2()
    await client.request("GET", stage.target("handler"))
    await stage.wait("began")
    first = client.stream
    with stage.journal.run() as other:
        await client.request("POST", stage.target("handler", run=other, query=_UNREAD), length=_MEBIBYTE)
        with anyio.move_on_after(0.3):
            await client.send_body(bytes(_MEBIBYTE))
        stage.run.mark_cause()
        await client.reset(first)
        await stage.run.wait("left", stage.missed)
        await ask(stage.process.port, "cancel", {"run": other.name})
        client.close()
        await other.wait("left", stage.missed)


async def _crowd(stage: Stage) -> None:
    with ExitStack() as stack:
        runs = [stage.run, *(stack.enter_context(stage.journal.run()) for _ in range(_CROWD - 1))]
        clients = [await stage.http1() for _ in runs]
        for client, run in zip(clients, runs, strict=True):
            await client.request("GET", stage.target("handler", run=run))
        for run in runs:
            await run.wait("began", stage.patience)
        stage.run.mark_cause()
        for client in clients:
            client.close()
        for run in runs:
            if await run.wait("left", stage.patience) is None:
                stage.note("ended", "a handler ran on")
    before = await stage.order("state")
    await anyio.sleep(_LOOK)
    after = await stage.order("state")
    busy = after["cpu"][0] - before["cpu"][1]  # without the look itself
    if busy > _IDLE:
        stage.note("idle", f"it worked for {busy:.2f} of {_LOOK:g} s with nobody there")
