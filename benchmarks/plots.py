"""Draw the figures: ``python -m benchmarks.plots [DIRECTORY]``; the one in the docs if none is given."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

from ._figures import Figure
from ._record import read
from .page import DIRECTORY, FIGURES

mpl.use("svg")
mpl.rcParams.update(
    {
        "svg.fonttype": "none",  # text stays text: small files, which can be searched
        "svg.hashsalt": "benchmarks",  # the same figures make the same file
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
)

from matplotlib import pyplot as plt  # noqa: E402  # after the backend was chosen

OURS, OTHER, TARGET = "#3949ab", "#9e9e9e", "#c62828"


def draw(directory: Path) -> None:
    """Draw all plots beside the figures in a directory; those that there are figures for."""
    figures = [it for run in read(directory / FIGURES).values() for it in run["figures"]]
    plots: dict[str, Callable[[list[Figure]], Any]] = {
        "throughput": _throughput,
        "disconnect": _disconnect,
        "core": _core,
        "fan_out": _fan_out,
    }
    for name, plot in plots.items():
        if drawn := plot(figures):
            path = directory / f"{name}.svg"
            drawn.savefig(path, metadata={"Date": None}, bbox_inches="tight")
            plt.close(drawn)
            # Lines that end in blanks are no style of ours.
            path.write_text(re.sub(r"[ \t]+$", "", path.read_text("utf-8"), flags=re.MULTILINE), "utf-8")


def _throughput(figures: list[Figure]) -> Any:
    """Draw a bar for each candidate on each server."""
    chosen = [
        it for it in figures if it.subject == "fastapi, one endpoint: requests" and it.candidate != "bare"
    ]
    if not chosen:
        return None
    places = list(dict.fromkeys(it.where for it in chosen))
    drawn, axes = plt.subplots(
        1, len(places), figsize=(1 + 3.2 * len(places), 2.6), sharex=True, squeeze=False
    )
    for ax, place in zip(axes[0], places, strict=True):
        rows = [it for it in chosen if it.where == place][::-1]
        _bars(ax, rows)
        ax.set_title(place)
        ax.set_xlabel("requests per second, of bare")
    drawn.tight_layout()
    return drawn


def _bars(ax: Any, rows: list[Figure]) -> None:
    names = [it.candidate for it in rows]
    ratios = [it.ratio.median for it in rows]
    errors = [
        [max(0.0, it.ratio.median - it.ratio.low) for it in rows],
        [max(0.0, it.ratio.high - it.ratio.median) for it in rows],
    ]
    colours = [OURS if it.candidate == "ours" else OTHER for it in rows]
    ax.barh(names, ratios, xerr=errors, color=colours, ecolor="black")
    for it in rows:
        if it.target:
            ax.axvline(it.target.limit, color=TARGET, linestyle=":")


def _disconnect(figures: list[Figure]) -> Any:
    """Draw which share of the handlers has ended after how long."""
    subject = "from a client's leaving to its handler's end, median"
    chosen = [it for it in figures if it.subject == subject and not math.isnan(it.value)]
    if not chosen:
        return None
    places = list(dict.fromkeys(it.where for it in chosen))
    drawn, axes = plt.subplots(
        1, len(places), figsize=(3.6 * len(places), 3), sharex=True, sharey=True, squeeze=False
    )
    for ax, place in zip(axes[0], places, strict=True):
        for it in chosen:
            if it.where == place:
                own = {"color": OURS, "linewidth": 2.5} if it.candidate == "ours" else {}
                shown = (*range(0, 99, 3), 99, 100)
                milliseconds = [it.percentiles[part] * 1e3 for part in shown]
                ax.plot(milliseconds, shown, label=it.candidate, **own)
        ax.set_xscale("log")
        ax.set_title(place)
        ax.set_xlabel("milliseconds after the client left")
        ax.legend(fontsize=7)
    axes[0][0].set_ylabel("% of the handlers have ended")
    drawn.tight_layout()
    return drawn


def _core(figures: list[Figure]) -> Any:
    """Draw the ratios of the core beside AnyIO that have a target."""
    starts = ("a token", "a block", "each item")
    chosen = [it for it in figures if it.target and it.subject.startswith(starts)][::-1]
    if not chosen:
        return None
    drawn, ax = plt.subplots(figsize=(7, 0.6 + 0.28 * len(chosen)))
    for row, it in enumerate(chosen):
        ax.plot([it.ratio.low, it.ratio.high], [row, row], color=OURS, linewidth=4, alpha=0.4)
        ax.plot(it.ratio.median, row, "o", color=OURS)
        ax.plot(it.target.limit, row, "|", color=TARGET, markersize=12) if it.target else None
    labels = [f"{it.candidate}, {it.where}, beside {it.floor}" for it in chosen]
    ax.set_yticks(range(len(chosen)), labels)
    ax.set_xlabel("times as long (a stroke is the target)")
    ax.set_xlim(left=0)
    return drawn


def _fan_out(figures: list[Figure]) -> Any:
    """Draw how long a cancel takes that reaches more and more operations."""
    pattern = re.compile(r"one cancel, ([\d,]+) waiting")
    chosen = [(it, found) for it in figures if (found := pattern.fullmatch(it.subject)) and it.target]
    if not chosen:
        return None
    drawn, ax = plt.subplots(figsize=(5.5, 3.4))
    for place in dict.fromkeys(it.where for it, _ in chosen):
        points = [(int(found[1].replace(",", "")), it) for it, found in chosen if it.where == place]
        numbers = [n for n, _ in points]
        (line,) = ax.plot(numbers, [it.value * 1e3 for _, it in points], "o-", label=f"a token, {place}")
        by_hand = [it.floor_value * 1e3 for _, it in points]
        ax.plot(numbers, by_hand, "x--", color=line.get_color(), label=f"each scope by hand, {place}")
    ax.set(xscale="log", yscale="log", xlabel="operations waiting", ylabel="milliseconds")
    ax.legend(fontsize=7)
    return drawn


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else DIRECTORY)
