"""What a cancelation looks like on the wire: one table for HTTP and WebSocket.

Statuses: 504 for a deadline of the server and 503 for everything else that the server decided
(RFC 9110, 15.6); not 408, which blames the client and invites it to try again. 499 is nginx's
convention for a client that left: nobody reads it, it is for logs and metrics. The document is a
problem document (RFC 9457). WebSocket codes are those of RFC 6455, 7.4.1, and of IANA's registry.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from .._core._reasons import Cancelation, CancelationReason
from ._types import Message, Receive, Scope, Send

PROBLEM_JSON = "application/problem+json"
_MAX_CLOSE_REASON = 123  # bytes, RFC 6455, 5.5


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer to a request that was cancelled."""

    status: int  #: of an HTTP response
    title: str  #: what the status is called
    close_code: int  #: of a WebSocket
    retry_after: int | None = None  #: in seconds

    @property
    def headers(self) -> dict[str, str]:
        """What an HTTP response says about the outcome in its headers."""
        return {} if self.retry_after is None else {"retry-after": str(self.retry_after)}


_UNAVAILABLE = Outcome(503, "Service Unavailable", 1013)  # try again later

_OUTCOMES = {
    CancelationReason.TIMEOUT: Outcome(504, "Gateway Timeout", 1011),  # internal error
    CancelationReason.DISCONNECT: Outcome(499, "Client Closed Request", 1001),  # going away
    CancelationReason.SHUTDOWN: Outcome(503, "Service Unavailable", 1012, retry_after=1),  # service restart
}


def outcome_of(cancelation: Cancelation) -> Outcome:
    """Look up the outcome of *cancelation*. A parent's cancelation has the outcome of its cause."""
    return _OUTCOMES.get(root_of(cancelation).reason, _UNAVAILABLE)


def problem(cancelation: Cancelation) -> dict[str, str | int]:
    """Describe *cancelation* as a problem document (RFC 9457), with the member ``reason`` added."""
    outcome, root = outcome_of(cancelation), root_of(cancelation)
    return {
        "type": "about:blank",
        "title": outcome.title,
        "status": outcome.status,
        "detail": root.text,  # without ``by``: who cancelled is nothing to the client
        "reason": str(root.reason),
    }


def http_messages(cancelation: Cancelation, prefix: str = "") -> tuple[Message, Message]:
    """Return the two messages of the response. *prefix* ``websocket.`` makes them deny a WebSocket."""
    outcome = outcome_of(cancelation)
    body = json.dumps(problem(cancelation), ensure_ascii=False).encode()
    fields = {"content-type": PROBLEM_JSON, "content-length": str(len(body)), **outcome.headers}
    return (
        {
            "type": f"{prefix}http.response.start",
            "status": outcome.status,
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()],
        },
        {"type": f"{prefix}http.response.body", "body": body, "more_body": False},
    )


def close_message(cancelation: Cancelation, codes: Mapping[CancelationReason, int] | None = None) -> Message:
    """Return the message that closes a WebSocket. *codes* come before those of the table."""
    root = root_of(cancelation)
    code = (codes or {}).get(root.reason, outcome_of(root).close_code)
    return {"type": "websocket.close", "code": code, "reason": close_reason(root.text)}


def own_farewell(close: Message) -> Message:
    """Return what whoever receives is told of a WebSocket that is closed here, with the message *close*."""
    code, reason = close.get("code", 1000), close.get("reason") or ""
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


def denial_messages(cancelation: Cancelation, scope: Scope) -> tuple[Message, ...]:
    """Return the messages that answer a WebSocket's handshake: a response, where the server can send one."""
    if "websocket.http.response" in (scope.get("extensions") or ()):
        return http_messages(cancelation, "websocket.")
    return (close_message(cancelation),)


async def reject(cancelation: Cancelation, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request or a WebSocket in place of the application."""
    if scope["type"] == "websocket":
        await receive()  # websocket.connect
        messages = denial_messages(cancelation, scope)
    else:
        messages = http_messages(cancelation)
    for message in messages:
        await send(message)


def close_reason(text: str) -> str:
    """Cut *text* to what a close frame has room for, between two characters."""
    return text.encode()[:_MAX_CLOSE_REASON].decode(errors="ignore")


def root_of(cancelation: Cancelation) -> Cancelation:
    """Return what was at the beginning: of a parent's cancelation, its cause."""
    while cancelation.reason is CancelationReason.PARENT and cancelation.cause is not None:
        cancelation = cancelation.cause
    return cancelation
