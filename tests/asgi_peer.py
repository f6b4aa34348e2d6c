"""The scripted ASGI peer that we ship, but strict: it raises what a well-behaved application never does."""

from __future__ import annotations

from typing import Any

from hother.cancelable import testing
from hother.cancelable.testing import (
    ALL_HABITS,
    GUNICORN,
    HYPERCORN,
    HYPERCORN_H2,
    STRICT,
    UVICORN,
    ASGIApp,
    Habits,
    Message,
    Receive,
    Scope,
    Send,
)

__all__ = (
    "ALL_HABITS",
    "GUNICORN",
    "HYPERCORN",
    "HYPERCORN_H2",
    "STRICT",
    "UVICORN",
    "ASGIApp",
    "Habits",
    "Message",
    "Peer",
    "Receive",
    "Scope",
    "Send",
)


class Peer(testing.Peer):
    """`hother.cancelable.testing.Peer`, strict unless told otherwise."""

    def __init__(self, *body: bytes | str, strict: bool = True, **options: Any) -> None:
        super().__init__(*body, strict=strict, **options)
