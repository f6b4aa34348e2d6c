"""A timeline: when a handler worked, when its client left, and how long it went on without the middleware."""

from __future__ import annotations

import time
from typing import final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

from ._runs import Pair, Run

SPAN = 3.3
"""How much time a timeline shows, in seconds."""

_NARROWEST = 16
_MARKS = {"work": "━", "left": "┃", "waste": "╌", "none": " "}
_ASCII_MARKS = {"work": "=", "left": "|", "waste": "-", "none": " "}
STYLES = {"work": "green", "left": "bold yellow", "waste": "red", "none": ""}


@final
class Timeline:
    """A line for both runs of a pair, as wide as there is room."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Tell Rich how wide it may be."""
        return Measurement(_NARROWEST, options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it."""
        marks = marks_for(options)
        text = Text(no_wrap=True, end="")
        for kind in _cells(self._pair, options.max_width):
            text.append(marks[kind], STYLES[kind])
        yield text


@final
class Axis:
    """The seconds, above the timelines."""

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Tell Rich how wide it may be."""
        return Measurement(_NARROWEST, options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it."""
        line = ""
        for second in range(int(SPAN) + 1):
            longer = line.ljust(int(second / SPAN * options.max_width)) + f"{second} s"
            line = longer if len(longer) <= options.max_width else line
        yield Text(line, style="dim", no_wrap=True, end="")


def marks_for(options: ConsoleOptions) -> dict[str, str]:
    """Return the characters to draw with, in *options*' encoding."""
    return _ASCII_MARKS if options.ascii_only else _MARKS


def _cells(pair: Pair, width: int) -> list[str]:
    """Return the kind of each cell."""
    worked, went_on, left = _length(pair.guarded), _length(pair.plain), _left_after(pair.guarded)
    if pair.scenario.finishes:
        went_on = 0.0
    cells: list[str] = []
    for number in range(width):
        at = number * SPAN / width
        cells.append("work" if at < worked else "waste" if at < went_on else "none")
    if left is not None:
        cells[min(int(left / SPAN * width), width - 1)] = "left"
    return cells


def _length(run: Run) -> float:
    if run.began_at is None:
        return 0.0
    return (time.monotonic() if run.ended_at is None else run.ended_at) - run.began_at


def _left_after(run: Run) -> float | None:
    if run.left_at is None or run.began_at is None:
        return None
    return max(run.left_at - run.began_at, 0.0)
