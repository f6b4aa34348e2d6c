"""The resource source, with a psutil that says what the test wants, and with the real one."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from hother.cancelable import Cancelation, CancelationReason, ResourceConditionSource


class Machine:
    """What psutil sees: one number per measurement, the last one for ever."""

    def __init__(self, memory: Any = (10.0,), cpu: Any = (0.0,), disk: Any = (10.0,)) -> None:
        self.numbers = {"memory": list(memory), "cpu": list(cpu), "disk": list(disk)}
        self.paths: list[str] = []

    def next(self, name: str) -> float:
        numbers = self.numbers[name]
        return float(numbers.pop(0) if len(numbers) > 1 else numbers[0])

    def virtual_memory(self) -> Any:
        return SimpleNamespace(percent=self.next("memory"))

    def cpu_percent(self) -> float:
        return self.next("cpu")

    def disk_usage(self, path: str) -> Any:
        self.paths.append(path)
        return SimpleNamespace(percent=self.next("disk"))


@pytest.mark.parametrize(
    ("machine", "thresholds", "end", "message"),
    [
        ({"memory": [95]}, {"memory": 90}, 0, "memory is used to 95 %, more than 90 %"),
        ({"memory": [50, 90, 90.5]}, {"memory": 90}, 10, "memory is used to 90.5 %, more than 90 %"),
        ({"disk": [50, 99]}, {"disk": 90, "memory": 90}, 5, "disk is used to 99 %, more than 90 %"),
        ({"cpu": [100, 50, 95]}, {"cpu": 90}, 10, "cpu is used to 95 %, more than 90 %"),
    ],
)
async def test_it_fires_above_a_threshold(
    machine: Any, thresholds: Any, end: float, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Not at it; and the first measurement of the processors has nothing to compare with.
    """
    monkeypatch.setitem(sys.modules, "psutil", Machine(**machine))
    source = ResourceConditionSource(**{f"{name}_threshold": value for name, value in thresholds.items()})
    start = anyio.current_time()

    cancelation = await source.wait()

    assert cancelation == Cancelation(CancelationReason.CONDITION, message)
    assert anyio.current_time() - start == end


async def test_disk_and_interval_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    By a path on the disk, and in seconds.
    """
    machine = Machine(disk=[1, 1, 51])
    monkeypatch.setitem(sys.modules, "psutil", machine)
    start = anyio.current_time()

    await ResourceConditionSource(disk_threshold=50, disk_path="/data", interval=1).wait()

    assert anyio.current_time() - start == 2
    assert machine.paths == ["/data"] * 3


async def test_the_real_psutil_can_be_asked() -> None:
    """
    Every machine uses more than nothing of its memory.
    """
    pytest.importorskip("psutil", exc_type=ImportError)

    cancelation = await ResourceConditionSource(
        memory_threshold=0, cpu_threshold=100, disk_threshold=100
    ).wait()

    assert cancelation.text.startswith("memory is used to")


def test_without_psutil_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    When the source is made, not when it is waited for.
    """
    monkeypatch.setitem(sys.modules, "psutil", None)

    with pytest.raises(ImportError, match=r"pip install 'hother-cancelable\[psutil\]'"):
        ResourceConditionSource(memory_threshold=90)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "needs at least one threshold"),
        ({"memory_threshold": "90"}, TypeError, "memory_threshold must be a number"),
        ({"cpu_threshold": True}, TypeError, "cpu_threshold must be a number"),
        ({"cpu_threshold": -1}, ValueError, "cpu_threshold must be between 0 and 100 percent"),
        ({"disk_threshold": 101}, ValueError, "disk_threshold must be between 0 and 100 percent"),
        ({"disk_threshold": float("nan")}, ValueError, "disk_threshold must be between"),
        ({"disk_threshold": 1, "interval": 0}, ValueError, "interval must be positive"),
    ],
)
def test_impossible_thresholds_are_refused(arguments: Any, error: type[Exception], message: str) -> None:
    """
    Whether psutil is there or not.
    """
    with pytest.raises(error, match=message):
        ResourceConditionSource(**arguments)


def test_it_shows_its_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Those that were given.
    """
    monkeypatch.setitem(sys.modules, "psutil", Machine())

    shown = repr(ResourceConditionSource(memory_threshold=90, disk_threshold=99.5))

    assert shown == "ResourceConditionSource(memory_threshold=90, disk_threshold=99.5)"
