"""The tasks of a server that is looked at through one of its own requests."""

from __future__ import annotations

import anyio

TIMER = "TCPServer._idle_timeout"
"""Hypercorn's, one for each connection. On Trio, that of the connection that asks may be there or not yet."""


def count_tasks() -> int:
    """Count the tasks that run in this event loop, but for timers of connections."""
    return sum(not (task.name or "").endswith(TIMER) for task in anyio.get_running_tasks())
