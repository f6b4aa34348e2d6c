"""What became of operations, in figures: how many ended how, and how long it took."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from threading import get_ident
from typing import final

from .._core._lifecycle import OperationStatus
from .._core._operation import OperationContext
from .._core._public import public
from .._core._reasons import CancelationReason


@public
@final
@dataclass(frozen=True, slots=True)
class Percentiles:
    """How some times are distributed, in seconds."""

    count: int  #: how many there are
    p50: float  #: half of them are no longer
    p95: float
    p99: float

    @classmethod
    def of(cls, times: Iterable[float]) -> Percentiles | None:
        """Return the percentiles of *times*, each of which is one of them; ``None`` if there are none."""
        ordered = sorted(times)
        if not ordered:
            return None
        p50, p95, p99 = (ordered[ceil(len(ordered) * percent / 100) - 1] for percent in (50, 95, 99))
        return cls(len(ordered), p50, p95, p99)


@public
@final
@dataclass(frozen=True, slots=True)
class RegistryStatistics:
    """What a registry knows of its operations, in figures."""

    running: int  #: how many run now
    ended: int  #: how many have ended, since the registry was made
    by_status: Mapping[OperationStatus, int]  #: how many of them ended as what
    by_reason: Mapping[CancelationReason, int]  #: how many were cancelled for what
    durations: Percentiles | None  #: how long the latest took, on the event loop's clock
    cancel_latencies: Percentiles | None  #: from being told to stop to being over, of the latest


@final
class Outcomes:
    """Counts operations as they end, in any thread.

    A sum that several threads add to would need a lock. So each thread has counts of its own, and whoever
    asks adds them up. The times are kept for the latest *samples* operations.
    """

    __slots__ = ("_counts", "_durations", "_latencies")

    def __init__(self, samples: int) -> None:
        self._counts: dict[int, dict[str, int]] = {}
        self._durations: deque[float] = deque(maxlen=samples)
        self._latencies: deque[float] = deque(maxlen=samples)

    def add(self, context: OperationContext) -> None:
        """Count one that has ended just now."""
        # Plain strings: to find them runs no code of Python's, between whose steps this thread could be
        # interrupted by a finalizer that comes here, too.
        counts = self._counts.get(get_ident()) or self._counts.setdefault(get_ident(), dict(_NOTHING))
        counts[context.status.value] += 1
        if context.duration is not None:
            self._durations.append(context.duration)
        if context.status is OperationStatus.CANCELLED and context.cancelation is not None:
            counts[context.cancelation.reason.value] += 1
            told_at = _told_at(context)
            if told_at is not None:
                self._latencies.append(max(time.time() - told_at, 0.0))

    def statistics(self, running: int) -> RegistryStatistics:
        """Return the figures."""
        counts = [counts.copy() for counts in list(self._counts.values())]
        by_status = {status: sum(c[status.value] for c in counts) for status in _ENDS}
        by_reason = {reason: sum(c[reason.value] for c in counts) for reason in CancelationReason}
        return RegistryStatistics(
            running=running,
            ended=sum(by_status.values()),
            by_status=by_status,
            by_reason=by_reason,
            durations=Percentiles.of(self._durations.copy()),
            cancel_latencies=Percentiles.of(self._latencies.copy()),
        )


_ENDS = tuple(status for status in OperationStatus if status.is_final)
_NOTHING = {kind.value: 0 for kind in (*_ENDS, *CancelationReason)}


def _told_at(context: OperationContext) -> float | None:
    """Return when the operation was told to stop; ``None`` if nobody knows.

    A scope or task that is not ours does not tell. A token may have been cancelled before the start.
    """
    cancelation = context.cancelation
    if cancelation is None or cancelation.reason is CancelationReason.EXTERNAL:
        return None
    return max(cancelation.at, context.started_at or 0.0)
