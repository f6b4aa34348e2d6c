"""WebSockets: whose handlers stop, and how both sides hear of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from functools import partial

from wsproto.events import TextMessage

from . import _websocket
from ._observation import Expectation, Fate
from ._scenario import Scenario, Script
from ._stage import Stage

_GONE = Expectation(Fate.DISCONNECT)
_TRY_AGAIN_LATER = 1013
_DONE = 4009  # what the handler closes with


def websockets() -> Iterator[Scenario]:
    """Yield all scenarios about WebSockets."""
    for handler, title in (("ticker", "only sends"), ("busy", "neither sends nor receives")):
        for leave in (_goodbye, _lost, _reset):
            name = leave.__name__.lstrip("_")
            yield _one(
                f"{handler}/{name}", f"{title}, {leave.__doc__}", partial(_play, handler, leave), _GONE
            )
    yield _one(
        "talk/goodbye", "receives, and ends in its own time", _talk, Expectation(Fate.FINISHED), control=False
    )
    yield _one("closes/handler", "the handler closes it", _closes, Expectation(Fate.FINISHED), control=False)
    yield _one("ticker/operator", "operator cancels", _operator, Expectation(Fate.MANUAL))


def _one(name: str, title: str, script: Script, expected: Expectation, *, control: bool = True) -> Scenario:
    return Scenario(
        "WebSockets", f"websocket/{name}", title, script, expected, frozenset({"websocket"}), control
    )


async def _goodbye(client: _websocket.Client) -> None:
    """Say goodbye, as RFC 6455 has it."""
    await client.say_goodbye(4001, "bye")
    await client.read_to_close(1.0)
    client.close()


async def _lost(client: _websocket.Client) -> None:
    """Close the connection."""
    client.close()


async def _reset(client: _websocket.Client) -> None:
    """Reset the connection."""
    client.wire.reset()


async def _play(handler: str, leave: Callable[[_websocket.Client], Awaitable[None]], stage: Stage) -> None:
    client = await stage.websocket(stage.target(handler))
    await stage.wait("began")
    stage.run.mark_cause()
    await leave(client)
    await stage.run.wait("left", stage.missed)


async def _talk(stage: Stage) -> None:
    client = await stage.websocket(stage.target("talk"))
    await client.send_text("hello")
    event = await client.next(stage.patience)
    if not isinstance(event, TextMessage) or event.data != "hello":
        stage.note("message", f"the answer was {event!r}")
    await _goodbye(client)
    await stage.wait("goodbye", stage.missed)
    await stage.run.wait("left", stage.missed)


async def _closes(stage: Stage) -> None:
    client = await stage.websocket(stage.target("closes"))
    code = await client.read_to_close(stage.missed)
    if code != _DONE:
        stage.note("code", f"the close code was {code}, not {_DONE}")
    await stage.run.wait("left", stage.missed)


async def _operator(stage: Stage) -> None:
    client = await stage.websocket(stage.target("ticker"))
    await stage.wait("began")
    stage.run.mark_cause()
    await stage.order("cancel")
    code = await client.read_to_close(stage.missed)
    if code != _TRY_AGAIN_LATER:
        stage.note("code", f"the close code was {code}, not {_TRY_AGAIN_LATER}")
    await stage.run.wait("left", stage.missed)
