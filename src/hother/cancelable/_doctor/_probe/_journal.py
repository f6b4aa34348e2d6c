"""The journal: what happens, told to the doctor at once, one JSON object a line.

It is a connection of its own, so that it works in worker processes of every server. Times are of
``time.monotonic()``, which all processes of a machine share.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from threading import Lock
from typing import Any

ADDRESS = "HOTHER_DOCTOR_JOURNAL"
"""The environment variable with the doctor's port."""

BIG_FILE = "HOTHER_DOCTOR_FILE"
"""The environment variable with the path of a file that fills every buffer."""

_lock = Lock()  # handlers may run in threads
_connections: list[socket.socket] = []  # one, once something was told in this process


def tell(event: str, run: str | None = None, **facts: Any) -> None:
    """Tell the doctor that *event* happens to *run* now. Safe in any thread; never a checkpoint."""
    line = {"event": event, "run": run, "at": time.monotonic(), **facts}
    data = json.dumps(line, default=repr).encode() + b"\n"
    # If that fails, the doctor has gone, and ends this process in a moment.
    with _lock, suppress(OSError):
        if not _connections:
            address = "127.0.0.1", int(os.environ[ADDRESS])
            _connections.append(socket.create_connection(address, timeout=5))
        _connections[0].sendall(data)
