"""Figures: measured in rounds that take turns, told as ratios within a round, kept as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import gmtime, strftime
from typing import Any


@dataclass
class Series:
    """What was measured of several candidates, in rounds that take turns."""

    title: str
    unit: str
    reference: str  #: the candidate that the others are compared with
    values: dict[str, list[float]] = field(default_factory=dict)

    def ratios(self, name: str) -> list[float]:
        """Return how a candidate compares with the reference, round by round."""
        pairs = zip(self.values[name], self.values[self.reference], strict=True)
        return sorted(value / reference for value, reference in pairs)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return the table: candidate, median, median ratio, and the ratios' spread."""
        rows = []
        for name, values in self.values.items():
            ratios = self.ratios(name)
            rows.append(
                (
                    name,
                    f"{median(values):,.1f} {self.unit}",
                    f"{median(ratios):.3f}",
                    f"{ratios[0]:.2f} to {ratios[-1]:.2f}",
                )
            )
        return rows

    def as_json(self) -> dict[str, Any]:
        """Return all of it."""
        return {
            "title": self.title,
            "unit": self.unit,
            "reference": self.reference,
            "values": self.values,
            "ratios": {name: median(self.ratios(name)) for name in self.values},
        }


def measure_in_turns(
    series: Sequence[Series], candidates: Iterable[str], rounds: int, once: Callable[[str], Sequence[float]]
) -> None:
    """Measure each candidate once in each round, after a round that only warms up.

    Each second round goes the other way around, so that a machine that gets slower is fair.

    Args:
        series: Where the values go.
        candidates: What to measure.
        rounds: How often.
        once: Measures a candidate, and returns a value for each of the series.
    """
    names = list(candidates)
    for number in range(rounds + 1):
        for name in names if number % 2 else reversed(names):
            for each, value in zip(series, once(name), strict=True):
                if number:
                    each.values.setdefault(name, []).append(value)


def show(series: Series) -> None:
    """Print a table, a fine one if rich is installed."""
    headers = ("", "median", f"of {series.reference}", "round by round")
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        _show_plainly(series, headers)
        return
    table = Table(title=series.title)
    for number, header in enumerate(headers):
        table.add_column(header, justify="right" if number else "left")
    for row in series.rows():
        table.add_row(*row)
    Console().print(table)


def _show_plainly(series: Series, headers: Sequence[str]) -> None:
    print(f"\n{series.title}")
    for row in (headers, *series.rows()):
        print(f"{row[0]:22} {row[1]:>18} {row[2]:>16} {row[3]:>16}")


def arguments(description: str | None, **defaults: Any) -> argparse.Namespace:
    """Read the command line: an option for each default, and ``--json FILE``."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    for name, default in defaults.items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(default, tuple):
            parser.add_argument(option, nargs="+", default=list(default), help=" ")
        else:
            parser.add_argument(option, type=type(default), default=default, help=" ")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    return parser.parse_args()


def keep(path: Path | None, figures: Iterable[Series]) -> None:
    """Write the figures to a file, with what is needed to make sense of them later."""
    if path is not None:
        record = {"machine": _machine(), "figures": [series.as_json() for series in figures]}
        path.write_text(json.dumps(record, indent=2) + "\n")


def _machine() -> dict[str, Any]:
    packages = ("anyio", "fastapi", "hypercorn", "starlette", "trio", "uvicorn", "uvloop")
    return {
        "at": strftime("%Y-%m-%dT%H:%M:%SZ", gmtime()),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "packages": {name: _version(name) for name in packages},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
