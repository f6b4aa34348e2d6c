"""Measure what the library costs: ``python -m benchmarks``, or only what is named.

Everything takes about three quarters of an hour on two processors, ``--quick`` about 5 minutes.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from importlib import import_module
from pathlib import Path
from time import monotonic

from rich.console import Console

from . import page
from ._plan import Plan
from ._record import facts, keep
from ._tables import show

NAMES = (
    *("import_time", "core", "growth", "registry", "in_process", "throughput", "waiting"),
    *("disconnect", "memory", "streams"),
)
ROOT = Path(__file__).parents[1]
OUT = ROOT / ".benchmarks"


def main() -> int:
    """Run what was asked for; return the exit status."""
    options = _options()
    level = "tiny" if options.tiny else "quick" if options.quick else "full"
    plan = Plan(level, tuple(options.where), tuple(options.candidates))
    out: Path = page.DIRECTORY if options.docs else options.out
    console = Console(width=160 if not sys.stdout.isatty() else None)
    failed = [name for name in options.names or NAMES if not _run(name, plan, out, console)]
    console.print(f"figures: {out / page.FIGURES}")
    if options.docs or options.plots:
        _draw(out, console)
    if options.docs:
        page.write()
    if failed:
        console.print(f"[red]failed: {', '.join(failed)}")
    return len(failed)


def _run(name: str, plan: Plan, out: Path, console: Console) -> bool:
    """Run one benchmark; what it measured is kept even if another fails."""
    module = import_module(f"benchmarks.{name}")
    console.rule(f"[bold]{name}")
    console.print((module.__doc__ or "").strip())
    about, start = facts(plan.level), monotonic()
    try:
        figures = list(module.run(plan))
    except Exception:
        traceback.print_exc()
        return False
    show(console, figures)
    about["seconds"] = round(monotonic() - start)
    console.print(f"{name} took {about['seconds']} s\n")
    keep(out / page.FIGURES, name, about, figures)
    return True


def _draw(out: Path, console: Console) -> None:
    try:
        from . import plots
    except ImportError as error:  # matplotlib is for those who want plots
        console.print(f"no plots: {error}")
    else:
        plots.draw(out)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and less in each: a look")
    parser.add_argument(
        "--tiny", action="store_true", help="whether everything runs; the figures mean nothing"
    )
    parser.add_argument("--where", nargs="+", default=[], help="only these event loops and servers: trio")
    parser.add_argument(
        "--candidates", nargs="+", default=[], help="only these, and what they are beside: ours"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="a directory for the figures")
    parser.add_argument("--plots", action="store_true", help="draw plots beside the figures")
    parser.add_argument("--docs", action="store_true", help="put figures, plots and the page into the docs")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    return options


if __name__ == "__main__":
    sys.exit(main())
