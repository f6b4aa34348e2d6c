"""The show: the play, for the eye or for a program."""

from __future__ import annotations

import json
import time
from typing import Any

import anyio
from rich.console import Console
from rich.live import Live

from ._children import TITLES
from ._play import play
from ._runs import Board, Run
from ._scenarios import SCENARIOS
from ._screen import INTRODUCTION, picture, verdict

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
