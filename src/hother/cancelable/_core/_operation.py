"""A snapshot of one operation, for errors, observers and dashboards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ._lifecycle import OperationStatus
from ._public import public
from ._reasons import Cancelation


@public
@dataclass(frozen=True, slots=True)
class OperationContext:
    """An operation as it stood at one moment. It keeps nothing of the operation alive."""

    id: str  #: unique among all operations of all processes
    name: str | None
    status: OperationStatus
    parent_id: str | None  #: the operation around or above it
    cancelation: Cancelation | None  #: why it was cancelled, if it was
    error: str | None  #: the ``repr`` of the error that it ended with
    started_at: float | None  #: in seconds since the epoch
    duration: float | None  #: from entering to leaving (or to now), in seconds of the event loop's clock
    metadata: Mapping[str, Any]  #: what its maker wrote on it
