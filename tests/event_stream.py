"""A parser of event streams, written from the HTML standard (9.2.6) and from nothing of ours."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Received:
    """An event as a browser dispatches it."""

    data: str
    type: str = "message"
    last_event_id: str = ""

    @property
    def json(self) -> Any:
        return json.loads(self.data)


@dataclass
class EventSource:
    """What a browser makes of a stream. It may be fed in parts."""

    events: list[Received] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    retry: int | None = None
    last_event_id: str = ""
    _rest: bytes = b""
    _is_first: bool = True
    _data: str = ""
    _type: str = ""
    _id: str = ""

    def feed(self, part: bytes, *, is_end: bool = True) -> EventSource:
        self._rest += part
        # A CR at the end may be half of a line end; a character may be in two parts.
        while (line := self._next_line(is_end)) is not None:
            self._process(line)
        return self

    def _next_line(self, is_end: bool) -> str | None:
        for number, byte in enumerate(self._rest):
            if byte in b"\r\n":
                is_cr = byte == ord("\r")
                if is_cr and number + 1 == len(self._rest) and not is_end:
                    return None
                end = number + (2 if is_cr and self._rest[number + 1 : number + 2] == b"\n" else 1)
                line, self._rest = self._rest[:number].decode(errors="replace"), self._rest[end:]
                if self._is_first:
                    line, self._is_first = line.removeprefix("\ufeff"), False
                return line
        return None

    def _process(self, line: str) -> None:
        if not line:
            self._dispatch()
            return
        name, colon, value = line.partition(":")
        if not name and colon:
            self.comments.append(value)
            return
        value = value.removeprefix(" ")
        if name == "event":
            self._type = value
        elif name == "data":
            self._data += value + "\n"
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value and all(digit in "0123456789" for digit in value):
            self.retry = int(value)

    def _dispatch(self) -> None:
        self.last_event_id = self._id
        data, kind = self._data, self._type
        self._data = self._type = ""
        if data:
            self.events.append(Received(data.removesuffix("\n"), kind or "message", self._id))


def parse(body: bytes) -> EventSource:
    """Parse a whole stream. An event that is not ended does not count."""
    return EventSource().feed(body)
