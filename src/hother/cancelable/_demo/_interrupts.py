"""Signals: the first one ends the demo in good order, the others do not disturb that."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import anyio
from anyio import CancelScope
from anyio.abc import TaskStatus


def run_until_interrupted(function: Callable[[], Awaitable[int]]) -> int:
    """Run *function* in an event loop; SIGINT and SIGTERM cancel it.

    Returns:
        Its exit code; or, as shells count, 128 and the number of the signal.
    """
    code = anyio.run(_until_interrupted, function)
    if code > 128:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process is about to exit, with that code
    return code


async def _until_interrupted(function: Callable[[], Awaitable[int]]) -> int:
    code = 1

    async def listen(*, task_status: TaskStatus[None]) -> None:
        nonlocal code
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for number in signals:
                if not scope.cancel_called:
                    code = 128 + number
                    scope.cancel()

    scope = CancelScope()
    async with anyio.create_task_group() as tasks:
        await tasks.start(listen)
        with scope:
            code = await function()
        tasks.cancel_scope.cancel()
    return code
