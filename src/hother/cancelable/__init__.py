"""Make work stop when nobody needs it any more, the same under asyncio and Trio.

A short tour, from the bottom up; each layer knows only those before it:

* ``_core``: the words (`CancelationReason`, `Cancelation`, the errors, the lifecycle) and the
  `CancelationToken`, which any thread may cancel and any task may wait for;
* ``sources``: what else may cancel: signals, conditions, timeouts, and whatever you make of them;
* ``_scope``: `Cancelable`, which ties tokens, sources and deadlines to one ``async with`` block;
* ``streams`` and ``decorators``: the same for async iterators and for whole functions;
* ``asgi``: one HTTP request or WebSocket, from its first message to its outcome;
* ``integrations``: FastAPI and Starlette; imported only by who uses them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._core._errors import (
        CancelationError,
        ConditionCancelation,
        DisconnectCancelation,
        LifecycleError,
        ManualCancelation,
        ParentCancelation,
        ShutdownCancelation,
        SignalCancelation,
        TimeoutCancelation,
    )
    from ._core._guard import TokenGuard
    from ._core._lifecycle import OperationStatus
    from ._core._observers import Observer, add_observer
    from ._core._operation import OperationContext
    from ._core._reasons import Cancelation, CancelationReason
    from ._core._token import CancelationToken, TokenStatistics
    from ._iteration import CancelableAsyncIterator
    from ._options import OperationOptions
    from ._scope import Cancelable, current_operation
    from ._shield import Shield
    from .decorators import (
        cancelable,
        cancelable_combine,
        cancelable_method,
        cancelable_with_condition,
        cancelable_with_signal,
        cancelable_with_token,
        with_cancelable,
        with_current_operation,
        with_timeout,
    )
    from .sources import (
        AllOfSource,
        AnyOfSource,
        CompositeSource,
        ConditionSource,
        ResourceConditionSource,
        SignalSource,
        Source,
        TimeoutSource,
        TokenSource,
    )
    from .streams import ChunkedCancelableStream, cancelable_stream, chunked_cancelable_stream

__all__ = (
    "AllOfSource",
    "AnyOfSource",
    "Cancelable",
    "CancelableAsyncIterator",
    "Cancelation",
    "CancelationError",
    "CancelationReason",
    "CancelationToken",
    "ChunkedCancelableStream",
    "CompositeSource",
    "ConditionCancelation",
    "ConditionSource",
    "DisconnectCancelation",
    "LifecycleError",
    "ManualCancelation",
    "Observer",
    "OperationContext",
    "OperationOptions",
    "OperationStatus",
    "ParentCancelation",
    "ResourceConditionSource",
    "Shield",
    "ShutdownCancelation",
    "SignalCancelation",
    "SignalSource",
    "Source",
    "TimeoutCancelation",
    "TimeoutSource",
    "TokenGuard",
    "TokenSource",
    "TokenStatistics",
    "add_observer",
    "cancelable",
    "cancelable_combine",
    "cancelable_method",
    "cancelable_stream",
    "cancelable_with_condition",
    "cancelable_with_signal",
    "cancelable_with_token",
    "chunked_cancelable_stream",
    "current_operation",
    "with_cancelable",
    "with_current_operation",
    "with_timeout",
)

# Importing the package costs next to nothing: each name is loaded when it is first used, as AnyIO's are.
_PLACES = {
    "CancelationError": "._core._errors",
    "ConditionCancelation": "._core._errors",
    "DisconnectCancelation": "._core._errors",
    "LifecycleError": "._core._errors",
    "ManualCancelation": "._core._errors",
    "ParentCancelation": "._core._errors",
    "ShutdownCancelation": "._core._errors",
    "SignalCancelation": "._core._errors",
    "TimeoutCancelation": "._core._errors",
    "TokenGuard": "._core._guard",
    "OperationStatus": "._core._lifecycle",
    "Observer": "._core._observers",
    "add_observer": "._core._observers",
    "OperationContext": "._core._operation",
    "Cancelation": "._core._reasons",
    "CancelationReason": "._core._reasons",
    "CancelationToken": "._core._token",
    "TokenStatistics": "._core._token",
    "CancelableAsyncIterator": "._iteration",
    "OperationOptions": "._options",
    "Cancelable": "._scope",
    "current_operation": "._scope",
    "Shield": "._shield",
    "cancelable": ".decorators",
    "cancelable_combine": ".decorators",
    "cancelable_method": ".decorators",
    "cancelable_with_condition": ".decorators",
    "cancelable_with_signal": ".decorators",
    "cancelable_with_token": ".decorators",
    "with_cancelable": ".decorators",
    "with_current_operation": ".decorators",
    "with_timeout": ".decorators",
    "ChunkedCancelableStream": ".streams",
    "cancelable_stream": ".streams",
    "chunked_cancelable_stream": ".streams",
    "AllOfSource": ".sources._several",
    "AnyOfSource": ".sources._several",
    "CompositeSource": ".sources._several",
    "ConditionSource": ".sources._condition",
    "ResourceConditionSource": ".sources._resources",
    "SignalSource": ".sources._signal",
    "Source": ".sources._source",
    "TimeoutSource": ".sources._timeout",
    "TokenSource": ".sources._token",
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_PLACES[name], __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
