"""Which request the present code works for."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from .._core._token import CancelationToken
    from ._exchange import Exchange

Mark: TypeAlias = list[Any]
"""The request's exchange, and the mark of who is around it; both ``None`` once the request is over.

Tasks that the application or the server starts inherit it, and may outlive the request: the next one of a
connection may be among them. A weak reference would do as well, and takes twice as long to make.
"""

_current: ContextVar[Mark | None] = ContextVar("request_exchange", default=None)

# Functions, since of an object that was imported CPython makes a method anew for each call.
current_mark = _current.get
set_mark = _current.set


def current_exchange() -> Exchange | None:
    """Return the exchange that this code works for, or ``None``. Never blocks."""
    mark = current_mark()
    exchange: Exchange | None = None if mark is None else mark[0]
    return None if exchange is None or exchange._has_ended else exchange


def current_request_token() -> CancelationToken | None:
    """Return the token of the request that this code works for, or ``None``. Never blocks."""
    exchange = current_exchange()
    return None if exchange is None else exchange._token
