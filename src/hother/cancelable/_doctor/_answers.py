"""What a client got."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Ending(str, Enum):
    """How an answer ended, as its client sees it."""

    COMPLETE = "complete"
    TRUNCATED = "truncated"  #: cut short, visibly
    NOTHING = "nothing"  #: the connection was closed without an answer
    WAITING = "waiting"  #: the client would wait still
    NOT_AWAITED = "not awaited"  #: the client had left

    __str__ = str.__str__


@dataclass(slots=True)
class Answer:
    """What a client got, for as long as it looked."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytearray = field(default_factory=bytearray)
    interim: int | None = None  #: the status of an interim answer, 100
    ending: Ending = Ending.NOT_AWAITED
