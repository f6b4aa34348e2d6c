"""What was found, for the eye and for programs."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from types import TracebackType
from typing import Any, final

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ._observation import Observation
from ._runner import Result, Verdict
from ._scenario import Scenario
from ._servers import Server

_MARKS = {Verdict.PASS: "✓", Verdict.LIMITATION: "○", Verdict.FAIL: "✗", Verdict.ABSENT: "·"}
_ASCII_MARKS = {Verdict.PASS: "+", Verdict.LIMITATION: "o", Verdict.FAIL: "X", Verdict.ABSENT: "-"}
_STYLES = {
    Verdict.PASS: "green",
    Verdict.LIMITATION: "yellow",
    Verdict.FAIL: "bold red",
    Verdict.ABSENT: "dim",
}
_NARROWEST = 40  # the titles, in characters
_PACKAGES = ("anyio", "fastapi", "starlette")


@final
class Progress:
    """How far each server is: a live picture on terminals, a line per server elsewhere."""

    def __init__(self, console: Console, servers: Sequence[Server], total: int) -> None:
        self._console = console
        self._total = total
        self._counts = {server.name: Counter[Verdict]() for server in servers}
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def take(self, result: Result) -> None:
        """Count a result."""
        self._counts[result.server][result.verdict] += 1
        if self._console.is_terminal:
            self._live.update(self._picture(), refresh=True)

    def finish(self, name: str) -> None:
        """Say that a server is done."""
        if not self._console.is_terminal:
            self._console.print(f"{name:<18} {_counts(self._counts[name])}")

    def _picture(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for name, counts in self._counts.items():
            table.add_row(name, f"{sum(counts.values())} of {self._total}", _counts(counts))
        return table


def print_report(
    console: Console,
    servers: Sequence[Server],
    scenarios: Sequence[Scenario],
    results: Sequence[Result],
    seconds: float,
) -> None:
    """Print the table, what the servers cannot do, and what failed."""
    legend = "  ".join(f"{number} {it.name} {it.version}" for number, it in enumerate(servers, 1))
    console.print(Text(legend, "dim"))
    console.print(table_of(console, servers, scenarios, results))
    console.print()
    _print_limitations(console, results)
    _print_ends(console, results)
    _print_failures(console, results)
    total = Counter(result.verdict for result in results)
    console.print(f"{_counts(total)}; it took {seconds:.0f} s.")


def table_of(
    console: Console, servers: Sequence[Server], scenarios: Sequence[Scenario], results: Sequence[Result]
) -> Table:
    """Return the table: a row for each scenario, a column for each server."""
    marks = _marks_for(console)
    cells = {(result.server, result.scenario.name): result.verdict for result in results}
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("", no_wrap=True, min_width=_NARROWEST)
    for number in range(len(servers)):
        table.add_column(f"{number + 1}", justify="center", no_wrap=True, min_width=1)
    group = ""
    for scenario in scenarios:
        if scenario.group != group:
            group = scenario.group
            table.add_row(Text(group, "bold"))
        verdicts = [cells.get((server.name, scenario.name), Verdict.ABSENT) for server in servers]
        table.add_row(f"  {scenario.title}", *(Text(marks[it], _STYLES[it]) for it in verdicts))
    return table


def as_json(servers: Sequence[Server], scenarios: Sequence[Scenario], results: Sequence[Result]) -> str:
    """Return all that was found, as JSON."""
    report = {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "servers": {
            server.name: {"package": server.package, "version": server.version} for server in servers
        },
        "scenarios": [{"name": it.name, "group": it.group, "title": it.title} for it in scenarios],
        "results": [_facts(result) for result in _in_order(servers, scenarios, results)],
    }
    return json.dumps(report, indent=1, default=str) + "\n"


def _facts(result: Result) -> dict[str, Any]:
    quirk = result.quirk
    return {
        "server": result.server,
        "scenario": result.scenario.name,
        "verdict": str(result.verdict),
        "problems": [sentence for _, sentence in result.problems],
        "limitation": None if quirk is None else {"text": quirk.text, "reference": quirk.reference},
        "attempts": result.attempts,
        "server_ended": result.server_ended,
        "seconds": round(result.seconds, 3),
        "seen": _observed(result.seen),
        "without_middleware": _observed(result.control),
    }


def _observed(seen: Observation | None) -> dict[str, Any] | None:
    return None if seen is None else asdict(seen)


def _in_order(
    servers: Sequence[Server], scenarios: Sequence[Scenario], results: Sequence[Result]
) -> list[Result]:
    columns = {server.name: number for number, server in enumerate(servers)}
    rows = {scenario.name: number for number, scenario in enumerate(scenarios)}
    return sorted(results, key=lambda result: (rows[result.scenario.name], columns[result.server]))


def _marks_for(console: Console) -> dict[Verdict, str]:
    return _ASCII_MARKS if console.options.ascii_only else _MARKS


def _counts(counts: Counter[Verdict]) -> str:
    passed, limited, failed = (counts[it] for it in (Verdict.PASS, Verdict.LIMITATION, Verdict.FAIL))
    return f"{passed} pass, {limited} limitations, {failed} failed"


def _print_limitations(console: Console, results: Sequence[Result]) -> None:
    found: dict[tuple[str, str], set[str]] = {}
    for result in results:
        if result.verdict is Verdict.LIMITATION:
            quirk = result.quirk
            what = (quirk.text, quirk.reference) if quirk else _unknown(result)
            found.setdefault(what, set()).add(result.server)
    if found:
        console.print(Text("What these servers cannot do, with or without the middleware:", "bold"))
    mark = _marks_for(console)[Verdict.LIMITATION]
    for (text, reference), names in found.items():
        console.print(Text(f"{mark} {', '.join(sorted(names))}: {text} ({reference})", "yellow"))


def _unknown(result: Result) -> tuple[str, str]:
    sentences = "; ".join(sentence for _, sentence in result.problems)
    return f"{result.scenario.name}: {sentences}", "not known to us: please tell us"


def _print_ends(console: Console, results: Sequence[Result]) -> None:
    for result in results:
        for why in result.server_ended:
            where = f"{result.server} {result.scenario.name}"
            console.print(
                Text(f"! {where}: {why}. Another one was started, and it was played again.", "yellow")
            )


def _print_failures(console: Console, results: Sequence[Result]) -> None:
    for result in results:
        if result.verdict is Verdict.FAIL:
            console.print(Text("\n".join(_failure(result)), "red"))


def _failure(result: Result) -> Iterator[str]:
    yield f"FAIL {result.server} {result.scenario.name}"
    for _, sentence in result.problems:
        yield f"     {sentence}"
    for what, seen in (("seen", result.seen), ("without the middleware", result.control)):
        if seen is not None:
            yield f"     {what}: {asdict(seen)}"
