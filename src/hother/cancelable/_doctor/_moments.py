"""Moments: how far a request has got when something happens to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from ._answers import Ending
from ._stage import Stage

Client: TypeAlias = Any  # of HTTP/1.1 or HTTP/2, which have the methods that are used here
Bring: TypeAlias = Callable[[Stage, Client, str], Awaitable[None]]

SMALL_BUFFER = 32_768
_STILL = 0.15  # seconds without a message of a stream: its server does not take more


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment, and how to get there."""

    name: str
    title: str
    handler: str
    bring_about: Bring  #: called with the path of the handler; returns when the moment has come
    buffer: int | None = None  #: of the client
    has_started: bool = False  #: the response
    is_complete: bool = False  #: the response


async def _unasked(stage: Stage, client: Client, target: str) -> None:
    await client.request("GET", target)
    await stage.wait("began")


async def _with_small_body(stage: Stage, client: Client, target: str) -> None:
    await client.request("POST", target, length=5)
    await client.send_body(b"hello")
    await stage.wait("began")


async def _mid_body(stage: Stage, client: Client, target: str) -> None:
    await client.request("POST", target, length=65_536)
    await client.send_body(bytes(1000))
    await stage.wait("part")


async def _started(stage: Stage, client: Client, target: str) -> None:
    await client.request("GET", target)
    await stage.wait("started")
    await client.read(stage.patience, until=1)


async def _stalled(stage: Stage, client: Client, target: str) -> None:
    await client.request("GET", target)
    await stage.wait("sends")
    await stage.run.wait_until_still(_STILL, stage.patience)


async def _background(stage: Stage, client: Client, target: str) -> None:
    await client.request("GET", target)
    answer = await client.read(stage.patience)
    if answer.ending is not Ending.COMPLETE:
        stage.note("answer", f"before its background task, the answer was {answer.ending}")
    await stage.wait("began")


UNASKED = Moment("unasked", "before the first receive()", "handler", _unasked)
UNREAD = Moment("unread", "body unread", "handler", _with_small_body)
MID_BODY = Moment("mid-body", "in the middle of the body", "upload", _mid_body)
HANDLER = Moment("handler", "in the handler, body read", "after-body", _with_small_body)
STARTED = Moment("started", "response started", "started", _started, has_started=True)
STALLED = Moment("stalled", "stream, client stalled", "flood", _stalled, SMALL_BUFFER, has_started=True)
BACKGROUND = Moment(
    "background", "background task", "background", _background, has_started=True, is_complete=True
)
MOMENTS = (UNASKED, UNREAD, MID_BODY, HANDLER, STARTED, STALLED, BACKGROUND)
