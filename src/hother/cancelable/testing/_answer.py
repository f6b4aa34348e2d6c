"""What an application has sent to its client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..asgi._types import Message


class Answer:
    """What an application has sent, up to now: the messages, and what they say."""

    def __init__(self) -> None:
        self.sent: list[Message] = []  #: every message that the server took, in order
        self.sent_at: list[float] = []  #: when it did, on the loop's clock, in seconds
        self.complete: bool = False  #: whether the response is, or the application closed the WebSocket

    @property
    def status(self) -> int | None:
        """The response's status, or ``None`` while there is none."""
        status = self._start.get("status")
        return None if status is None else int(status)

    @property
    def headers(self) -> dict[str, str]:
        """The response's headers, by their names in lower case."""
        return {
            bytes(name).decode("latin-1").lower(): bytes(value).decode("latin-1")
            for name, value in self._start.get("headers", ())
        }

    @property
    def chunks(self) -> list[bytes]:
        """The parts of the response's body, as they were sent."""
        return [message.get("body", b"") for message in self._all(*_BODIES)]

    @property
    def body(self) -> bytes:
        """The response's body up to now."""
        return b"".join(self.chunks)

    @property
    def json(self) -> Any:
        """The response's body, parsed."""
        return json.loads(self.body)

    @property
    def messages(self) -> list[bytes | str]:
        """What was sent to a WebSocket, up to now."""
        return [
            message["text"] if message.get("text") is not None else message["bytes"]
            for message in self._all("websocket.send")
        ]

    @property
    def accepted(self) -> bool:
        """Whether the WebSocket was accepted."""
        return self._first("websocket.accept") is not None

    @property
    def closed(self) -> tuple[int, str] | None:
        """The code and the reason that the application closed the WebSocket with, if it did."""
        close = self._first("websocket.close")
        return None if close is None else (close.get("code", 1000), close.get("reason") or "")

    def _take(self, message: Message, at: float) -> None:
        self.sent.append(message)
        self.sent_at.append(at)
        self.complete = self._is_last(message)

    @property
    def _start(self) -> Message:
        return self._first("http.response.start", "websocket.http.response.start") or {}

    @property
    def _size(self) -> int:
        return sum(map(len, self.chunks)) + sum(
            len(text.encode() if isinstance(text, str) else text) for text in self.messages
        )

    def _all(self, *types: str) -> Iterator[Message]:
        return (message for message in self.sent if message["type"] in types)

    def _first(self, *types: str) -> Message | None:
        return next(self._all(*types), None)

    def _check_order(self, message: Message) -> None:
        """Refuse what every server refuses."""
        if self.complete:
            raise RuntimeError(f"{message['type']} sent after the response was complete")
        if message["type"] == "http.response.start" and self.status is not None:
            raise RuntimeError("a second http.response.start")
        if message["type"] == "http.response.body" and self.status is None:
            raise RuntimeError("http.response.body sent before http.response.start")

    def _is_last(self, message: Message) -> bool:
        match message["type"]:
            case "http.response.body" | "http.response.zerocopysend":
                return not message.get("more_body", False) and not self._has_trailers
            case "http.response.pathsend":
                return not self._has_trailers
            case "http.response.trailers":
                return not message.get("more_trailers", False)
            case "websocket.http.response.body":
                return not message.get("more_body", False)
            case "websocket.close":
                return True
            case _:
                return False

    @property
    def _has_trailers(self) -> bool:
        return bool(self._start.get("trailers", False))


_BODIES = ("http.response.body", "websocket.http.response.body")
