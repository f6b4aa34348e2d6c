"""Figures for people: a table for each subject."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from rich.console import Console
from rich.table import Table

from ._figures import Figure, amount, bounds, number

COLUMNS = ("where", "candidate", "beside", "value", "floor", "ratio", "quartiles", "target", "verdict")


def show(console: Console, figures: Iterable[Figure]) -> None:
    """Print a table for each subject, one line for each figure."""
    subjects: dict[str, list[Figure]] = {}
    for it in figures:
        subjects.setdefault(it.subject, []).append(it)
    for subject, lines in subjects.items():
        table = Table(title=subject, title_justify="left", title_style="bold")
        for column in COLUMNS:
            table.add_column(column, justify="left" if column in COLUMNS[:3] else "right")
        for _, group in groupby(lines, key=lambda it: it.where):
            for line in group:
                table.add_row(*row(line))
            table.add_section()
        console.print(table)


def row(it: Figure) -> tuple[str, ...]:
    """Return what to say of a figure."""
    style = {None: "", True: "[green]", False: "[red]"}[it.is_met]
    return (
        *(it.where, it.candidate, it.floor),
        *(amount(it.value, it.unit), amount(it.floor_value, it.unit), number(it.ratio.median)),
        *(f"{number(it.ratio.low)} to {number(it.ratio.high)}", bounds(it), style + it.verdict),
    )
