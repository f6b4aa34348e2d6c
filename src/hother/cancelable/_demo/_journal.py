"""The journal: what the handlers do, told to the parent process as it happens, one JSON object a line.

Times are of ``time.monotonic()``, which all processes of a machine share.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, final

if TYPE_CHECKING:  # the parent reads journals, and has no need of Starlette
    from starlette.requests import HTTPConnection

Event: TypeAlias = "dict[str, Any]"
Tell: TypeAlias = Callable[[Event], None]

RUN_HEADER = "x-demo-run"
"""With it, a client of ours says which of its runs a request belongs to."""

_UPDATE_INTERVAL = 0.05  # seconds between two reports of progress


def journal(descriptor: int) -> Tell:
    """Make a function that writes events to *descriptor*. Safe in any thread."""

    def tell(event: Event) -> None:
        os.write(descriptor, json.dumps(event).encode() + b"\n")  # short enough for a pipe to keep whole

    return tell


@final
class Work:
    """The work of one handler, counted in units. Made by `working`."""

    def __init__(self, tell: Tell, facts: Event, total: int) -> None:
        self._tell = tell
        self._facts = facts
        self._total = total
        self._done = 0
        self._told_at = 0.0

    def units(self) -> Iterator[int]:
        """Yield a number for each unit, to be done in the loop's body."""
        for number in range(self._total):
            yield number
            self.did(1)

    def did(self, units: int) -> None:
        """Count *units* as done."""
        self._done += units
        if time.monotonic() - self._told_at > _UPDATE_INTERVAL:
            self.tell("works")

    def tell(self, event: str, **facts: object) -> None:
        """Write an event into the journal."""
        self._told_at = time.monotonic()
        progress = {"event": event, "at": self._told_at, "done": self._done, "total": self._total}
        self._tell({**self._facts, **progress, **facts})


@contextmanager
def working(connection: HTTPConnection, name: str, total: int) -> Generator[Work, None, None]:
    """Write into the journal that a handler works, how far it gets, and how it ends.

    Args:
        connection: The request or WebSocket.
        name: Of the work.
        total: How many units there are to do; 0 if that is unknown.
    """
    run = connection.headers.get(RUN_HEADER) or secrets.token_hex(3)
    facts = {"run": run, "name": name, "port": connection.scope["server"][1]}
    work = Work(connection.app.state.tell, facts, total)
    work.tell("begins")
    how = "finished"
    try:
        yield work
    except BaseException as error:
        how = type(error).__name__
        raise
    finally:
        work.tell("ends", how=how)
