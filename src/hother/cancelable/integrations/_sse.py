"""Server-sent events, as the HTML standard has them on the wire (section 9.2, "Server-sent events")."""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from typing import Any

from starlette.requests import HTTPConnection

from .._core._reasons import Cancelation, CancelationReason
from ..asgi import problem
from ..asgi._outcome import root_of

EVENT_STREAM = "text/event-stream"
HEARTBEAT = b":\n\n"  # a comment, which clients ignore
RETRY_AFTER = 1.0  # seconds, at least

_LINE_END = re.compile(r"\r\n|\n|\r")  # and no other: str.splitlines() knows seven more


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    r"""One event of a ``text/event-stream``.

    Args:
        data: What to say. Clients get it back with the line ends as ``\n``. An event without data
            calls no listener, but its *id* and *retry* count.
        event: The type of the event, which chooses the listener; ``message`` if there is none.
        id: What a client that comes back sends as ``Last-Event-ID``. Empty: nothing.
        retry: How long clients should wait before they come back, in milliseconds, as on the wire.
        comment: What clients ignore.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If *event* or *id* has more than one line, *id* a NUL (clients would ignore it), or
            *retry* is negative.
    """

    data: str | None = None
    event: str | None = None
    id: str | None = None
    retry: int | None = None
    comment: str | None = None

    def __post_init__(self) -> None:
        for name in ("data", "event", "id", "comment"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise TypeError(f"{name} must be a str, got {value!r}; for JSON, see ServerSentEvent.json()")
        for name in ("event", "id"):
            if _LINE_END.search(getattr(self, name) or ""):
                raise ValueError(f"{name} must be a single line, got {getattr(self, name)!r}")
        if "\0" in (self.id or ""):
            raise ValueError(f"id must not contain NUL, which makes clients ignore it, got {self.id!r}")
        if self.retry is not None and type(self.retry) is not int:
            raise TypeError(f"retry must be an int, in milliseconds, got {self.retry!r}")
        if self.retry is not None and self.retry < 0:
            raise ValueError(f"retry must not be negative, got {self.retry!r}")

    @classmethod
    def json(
        cls, value: Any, *, event: str | None = None, id: str | None = None, retry: int | None = None
    ) -> ServerSentEvent:
        """Make an event whose data is *value* as JSON.

        Raises:
            TypeError: If JSON cannot express *value*.
            ValueError: If it contains NaN or an infinity, which no JSON parser of a browser takes.
        """
        data = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return cls(data, event, id, retry)

    def encode(self) -> bytes:
        """Return the event as it goes over the wire, with the empty line that ends it."""
        lines = [f": {line}" for line in _lines(self.comment)]
        if self.event is not None:
            lines.append(f"event: {self.event}")
        if self.id is not None:
            lines.append(f"id: {self.id}")
        if self.retry is not None:
            lines.append(f"retry: {self.retry}")
        lines += [f"data: {line}" for line in _lines(self.data)]
        return "\n".join([*lines, "", ""]).encode()


def encode_event(item: ServerSentEvent | str) -> bytes:
    """Return *item* as it goes over the wire; a text is the data of an event."""
    if isinstance(item, ServerSentEvent):
        return item.encode()
    if isinstance(item, str):
        return ServerSentEvent(item).encode()
    raise TypeError(f"an event must be a ServerSentEvent or a str, got {item!r}")


def encode_farewell(cancelation: Cancelation, retry_spread: float = 5.0) -> bytes:
    """Return the event ``cancelled``, whose data is the problem document of *cancelation*.

    Args:
        cancelation: Why the stream ends.
        retry_spread: When the server shuts down: over how many seconds to spread the clients' coming
            back. They would all come at the same moment, else.
    """
    retry = None
    if root_of(cancelation).reason is CancelationReason.SHUTDOWN:
        retry = round(1000 * (RETRY_AFTER + retry_spread * random.random()))
    return ServerSentEvent.json(problem(cancelation), event="cancelled", retry=retry).encode()


def get_last_event_id(request: HTTPConnection) -> str | None:
    """Return the id of the last event that a client got before it came back, or ``None``. Never blocks.

    Endpoints of FastAPI have a parameter for it: ``last_event_id: LastEventId``.

    Args:
        request: Its request.
    """
    value: str | None = request.headers.get("last-event-id")
    # A header is Latin-1 to frameworks, while browsers send this one in UTF-8.
    return None if value is None else value.encode("latin-1").decode(errors="replace") or None


def _lines(text: str | None) -> list[str]:
    return [] if text is None else _LINE_END.split(text)
