"""Interrupt code at any of its lines, as a signal handler may."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def at_line(number: int, function: Callable[[], object]) -> Iterator[list[str]]:
    """Call *function* before the given line of all that functions called inside run, if they run so many.

    It is called like a handler of the `signal` module: on top of the frame that it interrupts. The
    list that ``with`` gives then tells where that was; it stays empty if there was no such line.
    """
    passed = 0
    where: list[str] = []

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal passed
        passed += event == "line"
        if passed == number and event == "line" and not where:  # once, whatever other tracers do
            where.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
            function()
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        yield where
    finally:
        sys.settrace(previous)
