"""The play: start the servers, let all clients come and leave at once, and judge."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import anyio

from ._children import Child, children
from ._clients import FAILURES, wait_until_up
from ._runs import Board, Run
from ._scenarios import problems

TIME_TO_START = 10.0
"""How long the servers may take to start, in seconds."""

TIME_TO_PLAY = 7.0
"""How long the scenarios may take, in seconds."""

_TIME_TO_EXPLAIN = 0.3  # until a log, or the end of a process, has come through the pipe, in seconds
_STAGGER = 0.01  # seconds between two clients, so that they do not hang up all at once


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
    found: list[str] = []

    async def ask(server: Child) -> None:
        await server.listens.wait()
        for port in server.ports.values():
            problem = await wait_until_up(port)
            if problem is not None:
                await anyio.sleep(_TIME_TO_EXPLAIN)
                found.append(_with_log(f"{server.title}: {problem}", server))

    async def ask_all() -> None:
        async with anyio.create_task_group() as tasks:
            for server in servers:
                tasks.start_soon(ask, server)

    if not await _unless_one_ends(servers, TIME_TO_START, ask_all):
        found.append(f"the servers did not answer within {TIME_TO_START:.0f} seconds")
    return _obituaries(servers) or found


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
    try:
        await run.scenario.client(run, port)
        await run.has_ended.wait()
    except FAILURES as error:
        run.failure = f"its client failed: {error!r}"


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
        _with_log(f"the process with {server.title} has ended", server)
        for server in servers
        if server.ended.is_set()
    ]


def _with_log(problem: str, server: Child) -> str:
    return "\n  ".join((f"{problem}; its log ends with:", *server.log)) if server.log else problem
