"""Measure two things that take turns, and report one as a ratio of the other.

A machine is fast one moment and slow the next. So nothing is reported in seconds alone: in each round
both sides are measured, one right after the other, and a figure is the median of the rounds' ratios.
"""

from __future__ import annotations

import gc
import json
from argparse import ArgumentParser
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One line of a report."""

    name: str  #: what was measured
    beside: str  #: what it is a ratio of
    where: str  #: the backend, or the server
    ours: float  #: seconds, the median of the rounds
    floor: float  #: seconds
    ratio: float  #: the median of the rounds' ratios
    low: float  #: the first quartile of the ratios
    high: float  #: the third
    target: float | None = None  #: what the ratio should be: at most, or at least if negative

    @property
    def is_met(self) -> bool | None:
        """Whether the ratio is what it should be."""
        if self.target is None:
            return None
        return self.ratio <= self.target if self.target > 0 else self.ratio >= -self.target


def figure(
    name: str,
    beside: str,
    where: str,
    rounds: Iterable[tuple[float, float]],
    target: float | None = None,
) -> Figure:
    """Make a figure of *rounds*: what ours took, and the floor, each time."""
    ours, floor = zip(*rounds, strict=True)
    ratios = [one / other for one, other in zip(ours, floor, strict=True)]
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return Figure(name, beside, where, median(ours), median(floor), median(ratios), low, high, target)


def quiet() -> None:
    """Collect garbage now, so that it is not collected in the middle of what is measured next."""
    gc.collect()


def report(title: str, figures: list[Figure], note: str = "") -> None:
    """Print a table, and write it as JSON where ``--json`` says."""
    table = Table(title=title, caption=note or None, title_justify="left", caption_justify="left")
    for column in ("what", "beside", "where"):
        table.add_column(column)
    for column in ("ours", "floor", "ratio", "quartiles", "target"):
        table.add_column(column, justify="right")
    for it in figures:
        mark = {None: "", True: "[green]", False: "[red]"}[it.is_met]
        target = "" if it.target is None else f"{'<=' if it.target > 0 else '>='} {abs(it.target):.2f}"
        table.add_row(
            *(it.name, it.beside, it.where),
            *(seconds(it.ours), seconds(it.floor), f"{mark}{it.ratio:.2f}"),
            *(f"{it.low:.2f}-{it.high:.2f}", target),
        )
    Console(width=150).print(table)
    parser = ArgumentParser(add_help=False)
    parser.add_argument("--json", type=Path)
    path: Path | None = parser.parse_known_args()[0].json
    if path is not None:
        path.write_text(json.dumps([asdict(it) for it in figures], indent=1) + "\n", encoding="utf-8")


def seconds(value: float) -> str:
    """Write a time with a unit that suits it."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if value * factor >= 1:
            return f"{value * factor:.2f} {unit}"
    return f"{value * 1e9:.0f} ns"
