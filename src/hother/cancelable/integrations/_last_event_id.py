"""FastAPI: what a client of server-sent events has, as a parameter of an endpoint."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from fastapi import Depends
from starlette.requests import HTTPConnection

from ._sse import get_last_event_id


async def _last_event_id(
    request: HTTPConnection,
) -> str | None:  # async: a plain function would take a thread
    return get_last_event_id(request)


LastEventId: TypeAlias = Annotated[str | None, Depends(_last_event_id)]
"""The type of an endpoint's parameter: the id of the last event that a client got, or ``None``."""
