"""What may cancel an operation. Each source is one coroutine, ``wait() -> Cancelation``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._condition import ConditionSource
    from ._resources import ResourceConditionSource
    from ._several import AllOfSource, AnyOfSource, CompositeSource
    from ._signal import SignalSource
    from ._source import Source
    from ._timeout import TimeoutSource
    from ._token import TokenSource

__all__ = (
    "AllOfSource",
    "AnyOfSource",
    "CompositeSource",
    "ConditionSource",
    "ResourceConditionSource",
    "SignalSource",
    "Source",
    "TimeoutSource",
    "TokenSource",
)

_PLACES = {
    "AllOfSource": "._several",
    "AnyOfSource": "._several",
    "CompositeSource": "._several",
    "ConditionSource": "._condition",
    "ResourceConditionSource": "._resources",
    "SignalSource": "._signal",
    "Source": "._source",
    "TimeoutSource": "._timeout",
    "TokenSource": "._token",
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_PLACES[name], __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
