"""Make work stop when nobody needs it any more, the same under asyncio and Trio.

A short tour, from the bottom up; each layer knows only those before it:

* ``_core``: the words (`CancelationReason`, `Cancelation`, the errors, the lifecycle) and the
  `CancelationToken`, which any thread may cancel and any task may wait for;
* ``_scope``: `Cancelable`, which ties tokens and deadlines to one ``async with`` block;
* ``asgi``: one HTTP request or WebSocket, from its first message to its outcome;
* ``integrations``: FastAPI and Starlette; imported only by who uses them.
"""

from __future__ import annotations

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
from ._core._lifecycle import OperationStatus
from ._core._observers import Observer, add_observer
from ._core._operation import OperationContext
from ._core._reasons import Cancelation, CancelationReason
from ._core._token import CancelationToken, TokenStatistics
from ._scope import Cancelable, OperationOptions, current_operation
from ._shield import Shield

__all__ = (
    "Cancelable",
    "Cancelation",
    "CancelationError",
    "CancelationReason",
    "CancelationToken",
    "ConditionCancelation",
    "DisconnectCancelation",
    "LifecycleError",
    "ManualCancelation",
    "Observer",
    "OperationContext",
    "OperationOptions",
    "OperationStatus",
    "ParentCancelation",
    "Shield",
    "ShutdownCancelation",
    "SignalCancelation",
    "TimeoutCancelation",
    "TokenStatistics",
    "add_observer",
    "current_operation",
)

for _name in __all__:  # tracebacks, reprs and pickles show where a name is public
    _value = globals()[_name]
    if getattr(_value, "__module__", "").startswith(__name__):
        _value.__module__ = __name__
del _name, _value
