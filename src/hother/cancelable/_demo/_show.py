"""The show: start the servers, let all clients come and leave at once, and judge."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
from rich.console import Console
from rich.live import Live

from ._children import TITLES, Child, children
from ._clients import wait_until_up
from ._runs import Board, Run
from ._scenarios import SCENARIOS, problems
from ._screen import INTRODUCTION, picture, verdict

TIME_TO_START = 10.0
"""How long the servers may take to start, in seconds."""

TIME_TO_PLAY = 7.0
"""How long the scenarios may take, in seconds."""

_STAGGER = 0.01  # seconds between two clients, so that they do not hang up all at once
_FRAME = 0.08  # seconds


async def show(console: Console) -> int:
    """Play all scenarios, and show them as they go.

    Returns:
        The exit code.
    """
    began_at = time.monotonic()
    board = Board(TITLES, SCENARIOS)
    status = ""
    found: list[str] = []
    console.print(INTRODUCTION)

    def say(text: str) -> None:
        nonlocal status
        status = text
        if not console.is_terminal:
            console.print(text)

    async def draw() -> None:
        while True:
            live.update(picture(board, console, status), refresh=console.is_terminal)
            await anyio.sleep(_FRAME)

    with Live(console=console, auto_refresh=False) as live:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(draw)
            found = await play(board, say)
            tasks.cancel_scope.cancel()
        live.update(picture(board, console))
    console.print()
    console.print(verdict(board, console, found, time.monotonic() - began_at))
    return 1 if found else 0


async def show_as_json(console: Console) -> int:
    """Play all scenarios, and print the measurements.

    Returns:
        The exit code.
    """
    board = Board(TITLES, SCENARIOS)
    found = await play(board, lambda text: None)
    print(json.dumps({"problems": found, "runs": [_facts(run) for run in board.runs()]}, indent=2))
    return 1 if found else 0


async def play(board: Board, say: Callable[[str], None]) -> list[str]:
    """Start the servers, play all scenarios, and stop the servers.

    Returns:
        What did not go as promised, one sentence each.
    """
    say("Starting uvicorn on asyncio and Hypercorn on Trio ...")
    async with children(board.take) as servers:
        found = await start_all(servers)
        if not found:
            say(f"{sum(1 for _ in board.runs())} clients connect; most of them hang up ...")
            found = await _play_all(board, servers)
    return found or [problem for pair in board.pairs for problem in problems(pair)]


async def start_all(servers: Sequence[Child]) -> list[str]:
    """Wait until all servers answer, for `TIME_TO_START` at most.

    Returns:
        What hinders them, one sentence each.
    """

    async def wait() -> None:
        async with anyio.create_task_group() as tasks:
            for server in servers:
                for port in server.ports.values():
                    tasks.start_soon(wait_until_up, port)

    in_time = await _unless_one_ends(servers, TIME_TO_START, wait)
    late = [] if in_time else [f"the servers did not answer within {TIME_TO_START:.0f} seconds"]
    return _obituaries(servers) or late


async def _play_all(board: Board, servers: Sequence[Child]) -> list[str]:
    async def play_all() -> None:
        async with anyio.create_task_group() as tasks:
            for run in board.runs():
                tasks.start_soon(_play, run, ports[run.backend][run.guarded])
                await anyio.sleep(_STAGGER)

    ports = {server.backend: server.ports for server in servers}
    await _unless_one_ends(servers, TIME_TO_PLAY, play_all)
    return _obituaries(servers)


async def _play(run: Run, port: int) -> None:
    await run.scenario.client(run, port)
    if run.failure is None:
        await run.has_ended.wait()


async def _unless_one_ends(
    servers: Sequence[Child], limit: float, function: Callable[[], Awaitable[None]]
) -> bool:
    """Await *function*, for *limit* seconds at most, or until a server ends.

    Returns:
        Whether *function* came to its end.
    """

    async def watch(server: Child) -> None:
        await server.ended.wait()
        tasks.cancel_scope.cancel()

    is_done = False
    with anyio.move_on_after(limit):
        async with anyio.create_task_group() as tasks:
            for server in servers:
                tasks.start_soon(watch, server)
            await function()
            is_done = True
            tasks.cancel_scope.cancel()
    return is_done


def _obituaries(servers: Sequence[Child]) -> list[str]:
    return [
        "\n  ".join((f"the process with {server.title} has ended; its log:", *server.log))
        for server in servers
        if server.ended.is_set()
    ]


def _facts(run: Run) -> dict[str, Any]:
    return {
        "scenario": run.scenario.name,
        "backend": run.backend,
        "middleware": run.guarded,
        "stopped_after": None if run.scenario.finishes else run.overrun,
        "how": run.how,
        "done": run.done,
        "total": run.total,
    }
