"""Cancel when the machine runs short of something. The one source that needs another package."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, final

import anyio

from .._core._public import public
from .._core._reasons import Cancelation, CancelationReason
from .._core._timeouts import seconds

if TYPE_CHECKING:
    from datetime import timedelta


@public
@final
class ResourceConditionSource:
    """Cancels when the machine's use of memory, processors or a disk goes above a threshold.

    All of them are measured for the whole machine, not only for this process, *interval* seconds apart.
    The first measurement of the processors comes after the first interval, since it is a mean over one.
    Needs psutil: ``pip install 'hother-cancelable[psutil]'``.

    Args:
        memory_threshold: In percent of the memory.
        cpu_threshold: In percent of all processors.
        disk_threshold: In percent of the disk that *disk_path* is on.
        disk_path: Which disk to look at.
        interval: The pause between measurements, in seconds.

    Raises:
        ImportError: If psutil is not installed.
        TypeError: If an argument is of the wrong kind.
        ValueError: If there is no threshold, or one is not between 0 and 100, or *interval* is not
            positive and finite.
    """

    __slots__ = ("_disk_path", "_interval", "_psutil", "_thresholds")

    def __init__(
        self,
        *,
        memory_threshold: float | None = None,
        cpu_threshold: float | None = None,
        disk_threshold: float | None = None,
        disk_path: str = "/",
        interval: float | timedelta = 5.0,
    ) -> None:
        given = {"memory": memory_threshold, "cpu": cpu_threshold, "disk": disk_threshold}
        self._thresholds = {name: _percent(name, value) for name, value in given.items() if value is not None}
        if not self._thresholds:
            raise ValueError("ResourceConditionSource() needs at least one threshold")
        pause = seconds(interval, "interval")
        if not pause:  # zero, or for ever
            raise ValueError(f"interval must be positive and finite, got {interval!r}")
        self._interval = pause
        self._disk_path = disk_path
        try:
            self._psutil: Any = import_module("psutil")
        except ImportError as error:
            message = "ResourceConditionSource needs psutil: pip install 'hother-cancelable[psutil]'"
            raise ImportError(message) from error

    def __repr__(self) -> str:
        thresholds = ", ".join(f"{name}_threshold={value:g}" for name, value in self._thresholds.items())
        return f"{type(self).__name__}({thresholds})"

    async def wait(self) -> Cancelation:
        """Wait until one of the thresholds is passed. Not a checkpoint if that is at once."""
        measured = self._measure()
        measured.pop("cpu", None)  # the mean of the next call counts from this one
        while not (exceeded := self._exceeded(measured)):
            await anyio.sleep(self._interval)
            measured = self._measure()
        return Cancelation(CancelationReason.CONDITION, exceeded)

    def _measure(self) -> dict[str, float]:
        measure: dict[str, Callable[[], float]] = {
            "memory": lambda: self._psutil.virtual_memory().percent,
            "cpu": self._psutil.cpu_percent,
            "disk": lambda: self._psutil.disk_usage(self._disk_path).percent,
        }
        return {name: measure[name]() for name in self._thresholds}

    def _exceeded(self, measured: dict[str, float]) -> str:
        return ", ".join(
            f"{name} is used to {value:g} %, more than {self._thresholds[name]:g} %"
            for name, value in measured.items()
            if value > self._thresholds[name]
        )


def _percent(name: str, value: float) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name}_threshold must be a number, got {value!r}")
    if not 0 <= value <= 100:  # also turns NaN away
        raise ValueError(f"{name}_threshold must be between 0 and 100 percent, got {value!r}")
    return value
