"""Which request the present code works for."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING
from weakref import ref

if TYPE_CHECKING:
    from .._core._token import CancelationToken
    from ._exchange import Exchange

# A weak reference: tasks that the application or the server starts inherit it, and may outlive the request.
current: ContextVar[ref[Exchange] | None] = ContextVar("request_exchange", default=None)


def current_exchange() -> Exchange | None:
    """Return the exchange that this code works for, or ``None``. Never blocks."""
    reference = current.get()
    # Who keeps the ``receive`` of a request that is over keeps its exchange, too.
    exchange = None if reference is None else reference()
    return None if exchange is None or exchange._has_ended else exchange


def current_request_token() -> CancelationToken | None:
    """Return the token of the request that this code works for, or ``None``. Never blocks."""
    exchange = current_exchange()
    return None if exchange is None else exchange._token
