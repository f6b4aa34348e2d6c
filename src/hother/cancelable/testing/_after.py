"""A moment in a scripted request."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import final


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class After:
    """A moment in a request: after so much of it. If several limits are given, the first of them counts.

    0 of anything is the moment before the application is called.

    Raises:
        ValueError: If there is no limit, or a negative one.
    """

    bytes: int | None = None  #: bytes of the response's body (of WebSocket messages) that were sent
    messages: int | None = None  #: messages that the application has sent, of any kind
    receives: int | None = None  #: calls of ``receive()`` that found nothing to hand over, and wait
    awaits: int | None = None  #: times that the application, or a task that it started, had to wait at all
    seconds: float | None = None  #: seconds on the event loop's clock

    def __post_init__(self) -> None:
        limits = [getattr(self, field.name) for field in fields(self)]
        given = [limit for limit in limits if limit is not None]
        if not given or not all(limit >= 0 for limit in given):
            raise ValueError(f"After() takes at least one limit, and none below 0; got {self}")
