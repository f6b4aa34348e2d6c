"""What the demo looks like: a table for each backend, a legend, a verdict."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ._children import TITLES
from ._runs import Board, Pair, Run
from ._scenarios import BOUND
from ._timeline import STYLES, Axis, Timeline, marks_for

INTRODUCTION = (
    "One FastAPI app on two servers, with RequestCancelationMiddleware and without it. Clients hang up: "
    "how long do their handlers go on after that, and how much of their work do they do?\n"
)


@final
class Screen(Console):
    """A console whose reader may leave, as that of ``demo | head`` does."""

    def on_broken_pipe(self) -> None:
        """End the demo in good order. Rich would exit on the spot, in the midst of a task group."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        signal.raise_signal(signal.SIGTERM)


def picture(board: Board, console: Console, status: str = "") -> RenderableType:
    """Draw how it stands."""
    parts: list[RenderableType] = []
    for backend, title in TITLES.items():
        parts += [_table(title, board.pairs_on(backend)), ""]
    parts.append(Text(status, style="dim") if status else _legend(console))
    return Group(*parts)


def verdict(board: Board, console: Console, found: Sequence[str], seconds: float) -> RenderableType:
    """Draw how it ended."""
    lines = Text()
    for problem in found:
        lines.append(f"{_sign(console, kept=False)} {problem}\n", "red")
    if not found:
        slowest = max(run.overrun or 0.0 for run in board.runs() if run.guarded and not run.scenario.finishes)
        lines.append(f"{_sign(console, kept=True)} With the middleware all handlers stopped ", "green")
        lines.append(f"within {_duration(slowest)}", "green")
        lines.append(f" ({_duration(BOUND)} are allowed).\n")
    if board.waste(guarded=False):
        lines.append("Time spent on clients that had left: ")
        lines.append(_duration(board.waste(guarded=True)), "bold green")
        lines.append(" with it, ")
        lines.append(_duration(board.waste(guarded=False)), "bold red")
        lines.append(" without it.\n")
    lines.append(f"The demo took {seconds:.1f} s.", "dim")
    return lines


def _table(title: str, pairs: Sequence[Pair]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), expand=True, header_style="dim")
    table.add_column(Text(title, style="bold not dim"), width=31, no_wrap=True)
    table.add_column(Axis(), ratio=1, no_wrap=True)
    for heading, width in (("with it", 8), ("units", 6), ("without", 8), ("units", 6)):
        table.add_column(heading, justify="right", width=width, no_wrap=True)
    for pair in pairs:
        what = Text.assemble(f"{pair.scenario.request:<13}", (pair.scenario.note, "dim"))
        table.add_row(what, Timeline(pair), *_outcome(pair.guarded), *_outcome(pair.plain))
    return table


def _outcome(run: Run) -> tuple[Text, Text]:
    """When the handler stopped, and how much it did."""
    units = Text("" if run.began_at is None else f"{run.done}/{run.total}" if run.total else f"{run.done}")
    if run.scenario.finishes:
        text = run.scenario.success if run.is_finished else "" if run.how is None else "cut short"
        return Text(text, "green" if run.is_finished else "red"), units
    overrun = run.overrun
    is_good = overrun is not None and overrun <= BOUND
    return Text("" if overrun is None else _duration(overrun), "green" if is_good else "red"), units


def _legend(console: Console) -> Text:
    marks = marks_for(console.options)
    legend = Text()
    for kind, meaning in (
        ("work", "the handler works"),
        ("left", "its client hangs up"),
        ("waste", "it goes on without it"),
    ):
        legend.append(marks[kind] * (1 if kind == "left" else 2), STYLES[kind])
        legend.append(f" {meaning}   ", "dim")
    legend.append("\n* Starlette stops a stream by itself, once it has begun", "dim")
    return legend


def _duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"


def _sign(console: Console, *, kept: bool) -> str:
    if console.options.ascii_only:
        return "ok:" if kept else "FAILED:"
    return "✓" if kept else "✗"
