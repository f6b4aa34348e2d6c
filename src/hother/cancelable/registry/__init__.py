"""Which operations run now, how others have ended, and a way to cancel them: for operators and dashboards.

* `OperationRegistry`: an observer that keeps account of operations;
* `OperationEvents`: what it hears, as an async iterator;
* `RegistryStatistics` and `Percentiles`: what became of them, in figures.

None of its methods blocks or takes a lock: they may be called by any thread, and by signal handlers.
"""

from __future__ import annotations

from ._events import OperationEvents
from ._filter import OperationFilter
from ._registry import OperationRegistry
from ._statistics import Percentiles, RegistryStatistics

__all__ = (
    "OperationEvents",
    "OperationFilter",
    "OperationRegistry",
    "Percentiles",
    "RegistryStatistics",
)
