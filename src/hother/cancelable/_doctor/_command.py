"""The command: choose servers and scenarios, examine, and tell."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .._demo._interrupts import run_until_interrupted
from . import Options
from ._catalogue import SCENARIOS
from ._journal import Journal
from ._report import Progress, as_json, print_report
from ._runner import Result, Verdict, run_all
from ._scenario import Scenario
from ._servers import SERVERS, Server
from ._user_app import UserApp, examine_user_app
from ._work import examine

AT_ONCE = 3
"""How many servers are examined at once: most of the time is spent waiting."""


class Wrong(Exception):
    """An option cannot be followed."""


def start(options: Options) -> int:
    """Run the doctor, with all that it needs installed. Returns the exit code."""
    console = Console(no_color=not options.color, highlight=False)
    try:
        if options.lists:
            _print_list(console)
            return 0
        check_together(options)
        servers = chosen_servers(options.servers)
        if options.app is not None:
            user = chosen_app(options.app, options)
            return run_until_interrupted(lambda: examine_user_app(user, servers, console))
        scenarios = chosen_scenarios(options.only)
        check_file(options.json)
    except Wrong as error:
        print(error, file=sys.stderr)
        return 2
    return run_until_interrupted(lambda: _examine(servers, scenarios, console, options.json))


def check_together(options: Options) -> None:
    """Complain of options that would be for nothing.

    Raises:
        Wrong: If there are some.
    """
    about_app = {"--path": options.path, "--deadline": options.deadline, "--header": options.headers or None}
    about_servers = {"--only": None if options.only == "*" else options.only, "--json": options.json}
    for name, value in (about_app if options.app is None else about_servers).items():
        if value is not None:
            raise Wrong(f"{name} goes {'only with' if options.app is None else 'not with'} --app")


def chosen_app(place: str, options: Options) -> UserApp:
    """Return what to look at.

    Raises:
        Wrong: If an option about it cannot be followed.
    """
    try:
        return UserApp.of(place, options.path, options.deadline, options.headers)
    except ValueError as error:
        raise Wrong(str(error)) from None


def check_file(name: str | None) -> None:
    """Complain of a file that cannot be written, before minutes have passed.

    Raises:
        Wrong: If it cannot.
    """
    try:
        if name is not None:
            Path(name).open("a", encoding="utf-8").close()  # what is in it stays, for now
    except OSError as error:
        raise Wrong(f"--json: {error.strerror}: {name}") from None


def chosen_servers(names: Sequence[str]) -> list[Server]:
    """Return the servers of these names; all that are installed by default.

    Raises:
        Wrong: If there is no such server, or it is not installed.
    """
    for name in names:
        if name not in SERVERS:
            raise Wrong(f"no server is called {name!r}; there are: {', '.join(SERVERS)}")
        if missing := SERVERS[name].missing:
            raise Wrong(f"{name} needs: pip install {' '.join(missing)}")
    servers = [SERVERS[name] for name in names] or [it for it in SERVERS.values() if not it.missing]
    if not servers:
        raise Wrong("no server is installed; for example: pip install uvicorn websockets")
    return servers


def chosen_scenarios(pattern: str) -> list[Scenario]:
    """Return the scenarios whose names match.

    Raises:
        Wrong: If there are none.
    """
    found = [scenario for scenario in SCENARIOS if fnmatchcase(scenario.name, pattern)]
    if not found:
        raise Wrong(f"no scenario's name matches {pattern!r}; `doctor --list` prints them")
    return found


async def examine_all(
    servers: Sequence[Server], scenarios: Sequence[Scenario], progress: Progress
) -> list[Result]:
    """Play all scenarios on all servers."""
    results: list[Result] = []

    def report(result: Result) -> None:
        results.append(result)
        progress.take(result)

    async def work(server: Server, journal: Journal) -> None:
        await examine(server, scenarios, journal, report)
        progress.finish(server.name)

    # The slowest ones first, so that none is waited for alone.
    await run_all(sorted(servers, key=lambda server: -server.pace), work, at_once=AT_ONCE)
    return results


async def _examine(
    servers: Sequence[Server], scenarios: Sequence[Scenario], console: Console, json: str | None
) -> int:
    began_at = time.monotonic()
    with Progress(console, servers, len(scenarios)) as progress:
        results = await examine_all(servers, scenarios, progress)
    print_report(console, servers, scenarios, results, time.monotonic() - began_at)
    if json is not None:
        Path(json).write_text(as_json(servers, scenarios, results), encoding="utf-8")  # noqa: ASYNC240 (all is over)
    return 1 if any(result.verdict is Verdict.FAIL for result in results) else 0


def _print_list(console: Console) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("server", "version", "needs"):
        table.add_column(heading)
    for server in SERVERS.values():
        missing = server.missing
        table.add_row(server.name, server.version, f"pip install {' '.join(missing)}" if missing else "")
    console.print(table, "", "Scenarios:", sep="\n")
    for scenario in SCENARIOS:
        console.print(f"{scenario.name:<28} {scenario.group}: {scenario.title}", soft_wrap=True)
