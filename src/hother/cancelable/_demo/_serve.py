"""Serving only: the servers stay up, to be tried by hand, and what their handlers do is printed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import anyio
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ._children import Child, children
from ._journal import Event
from ._play import start_all

_COMMANDS = (
    "curl --max-time 1 {url}/report",
    "curl --max-time 1 {url}/export",
    "curl --max-time 1 '{url}/chat?prompt=30'",
    "curl --max-time 1 --no-buffer {url}/chat",
    "head -c 65536 /dev/zero | curl --max-time 1 -T - '{url}/upload?pace=0.04'",
    "curl -X POST {url}/order",
    "python -m websockets ws://{address}/ticker  # Ctrl-C leaves it",
)


async def serve_until_cancelled(console: Console) -> int:
    """Keep the servers up, and print what their handlers do, until cancelled.

    Returns:
        The exit code, if a server could not start or has ended.
    """
    printer = Printer(console)
    console.print("Starting uvicorn on asyncio and Hypercorn on Trio ...")
    async with children(printer.take, printer.log) as servers:
        found = await start_all(servers)
        if not found:
            _print_invitation(console, servers)
            printer.know(servers)
            async with anyio.create_task_group() as tasks:
                for server in servers:
                    tasks.start_soon(_wait_for_end, server, tasks.cancel_scope)
            found = ["a server has ended"]
    for problem in found:
        console.print(Text(problem, style="red"))
    return 1


@final
class Printer:
    """Prints what handlers do, a line each time one begins or ends.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._where: dict[int, Text] = {}
        self._began_at: dict[str, float] = {}

    def know(self, servers: Sequence[Child]) -> None:
        """Learn which port is whose."""
        for server in servers:
            for guarded, port in server.ports.items():
                style = "green" if guarded else "red"
                self._where[port] = Text(f"{server.title:<20}{_side(guarded):<9}", style)

    def take(self, event: Event) -> None:
        """Print an event of a handler."""
        key = f"{event['run']} {event['name']}"
        if event["event"] == "begins":
            self._began_at[key] = event["at"]
            self._print(event, "begins")
        elif event["event"] == "ends":
            seconds = event["at"] - self._began_at.pop(key)
            units = f"{event['done']}/{event['total']}" if event["total"] else f"{event['done']}"
            self._print(event, f"{_ending(event['how'])} after {seconds:.2f} s, {units} units done")

    def log(self, line: str) -> None:
        """Print a line of a server's log, unless it is in the middle of a traceback."""
        if not line.startswith((" ", "Traceback")):
            self._console.print(Text(line, style="dim"))

    def _print(self, event: Event, text: str) -> None:
        where = self._where.get(event["port"], Text(str(event["port"])))
        self._console.print(Text.assemble(where, f"{event['name']:<8}", text))


def _ending(how: str) -> str:
    return "finished" if how == "finished" else f"stopped ({how})"


def _side(guarded: bool) -> str:
    return "with" if guarded else "without"


async def _wait_for_end(server: Child, scope: anyio.CancelScope) -> None:
    await server.ended.wait()
    scope.cancel()


def _print_invitation(console: Console, servers: Sequence[Child]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("", "with the middleware", "without it"):
        table.add_column(heading)
    for server in servers:
        table.add_row(server.title, *(f"http://{_address(server, guarded)}" for guarded in (True, False)))
    console.print("", table, "", "Hang up on one of them:", "", sep="\n")
    address = _address(servers[0], guarded=True)
    for command in _COMMANDS:
        line = "  " + command.format(url=f"http://{address}", address=address)
        console.print(Text(line), soft_wrap=True)  # whole, so that it can be copied
    console.print("\nCtrl-C ends them. What the handlers do:\n")


def _address(server: Child, guarded: bool) -> str:
    return f"127.0.0.1:{server.ports[guarded]}"
