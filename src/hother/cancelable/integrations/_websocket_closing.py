"""What closing a WebSocket means to either side: codes, and errors."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from anyio import get_cancelled_exc_class
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from .._core._errors import cancelation_in, error_for, leaves
from .._core._lifecycle import OperationStatus
from .._core._reasons import Cancelation, CancelationReason
from .._scope import Cancelable
from ..asgi import close_message
from ..asgi._outcome import http_messages, root_of

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from ..asgi._types import Message

NO_CODE = 1005
"""The code of a connection that nobody closed, or that the server does not tell the code of."""

WRONG_KIND = 1003
"""The code that refuses a message of the wrong kind (RFC 6455, 7.4.1)."""

_SENDABLE = frozenset({*range(1000, 1004), *range(1007, 1015)})  # RFC 6455, 7.4, and IANA's registry


def checked_codes(codes: Mapping[CancelationReason, int]) -> Mapping[CancelationReason, int]:
    """Return a copy of *codes*.

    Raises:
        TypeError: If a key is no reason.
        ValueError: If a code must not be sent.
    """
    for reason, code in codes.items():
        if not isinstance(reason, CancelationReason):
            raise TypeError(f"close_codes maps CancelationReasons to codes, got {reason!r}")
        if type(code) is not int or not (code in _SENDABLE or 3000 <= code <= 4999):
            raise ValueError(f"a close code must be 1000 to 1003, 1007 to 1014 or 3000 to 4999, got {code!r}")
    return dict(codes)


def farewell(message: Message) -> Message:
    """Have all servers say the same about a connection that was lost, or closed without a code."""
    code = message.get("code", NO_CODE)
    return {
        "type": "websocket.disconnect",
        "code": NO_CODE if code == 1006 else code,
        "reason": message.get("reason") or "",
    }


def is_deniable(websocket: WebSocket, cancelation: Cancelation) -> bool:
    """Whether *cancelation* can be answered with a response, since the handshake is not over yet.

    A close before the handshake is 403 on every server: that blames the client, and says nothing.
    Nobody sends 499, which is for logs (and which uvicorn has no name for).
    """
    is_open = websocket.application_state is WebSocketState.CONNECTING
    can_respond = "websocket.http.response" in (websocket.scope.get("extensions") or ())
    return is_open and can_respond and root_of(cancelation).reason is not CancelationReason.DISCONNECT


def last_words(
    websocket: WebSocket, cancelation: Cancelation, codes: Mapping[CancelationReason, int]
) -> tuple[Message, ...]:
    """Return what closes the connection; or denies it, if it was not accepted and the server can do that."""
    close = close_message(cancelation, codes)
    if not is_deniable(websocket, cancelation):
        return (close,)
    return (close, *http_messages(cancelation, "websocket."))


def cause_of(operation: Cancelable, block: Cancelable, left: BaseException | None) -> Cancelation | None:
    """Why *block*, a part of *operation*, was cut short, or cancelled the one who raised *left* in it."""
    if block.status is OperationStatus.CANCELLED:
        return operation.cancelation or block.cancelation
    return None if left is None else cancelation_in(left)


def in_own_words(block: Cancelable, error: BaseException) -> BaseException:
    """Take Starlette's error for what it means to a block that was cancelled since its client has left.

    Beside it, a group may hold cancelations that are not ours to judge: those alone go on, then.
    """
    cancelation = block.cancelation
    if cancelation is None or cancelation.reason is not CancelationReason.DISCONNECT:
        return error
    others = [leaf for leaf in leaves(error) if not isinstance(leaf, WebSocketDisconnect)]
    if not others:
        own = error_for(cancelation, block.context)
        own.__cause__ = error
        return own
    group: Any = error
    if isinstance(group, BaseExceptionGroup) and all(
        isinstance(leaf, get_cancelled_exc_class()) for leaf in others
    ):
        rest: BaseException = cast("Any", group).split(WebSocketDisconnect)[1]
        return rest
    return error
