"""What happens in a server process, told to the test that started it.

An application calls `record`; the test finds the event in `ServerProcess.events`.
"""

from __future__ import annotations

import json
import os
from time import monotonic
from typing import Any

STDOUT = 1


def record(event: str, /, *, key: str | None = None, **fields: Any) -> None:
    """Tell the test that *event* happens now. Safe in any thread, and never a checkpoint.

    Args:
        event: What happens.
        key: Which request it happens to: tests share the server, and each chooses keys of its own.
        **fields: What else there is to tell; what JSON cannot express is told by its ``repr()``.
    """
    line = {"event": event, "key": key, "at": monotonic(), "fields": fields}
    # One write per line, without a buffer and without a lock: signal handlers record events too.
    os.write(STDOUT, json.dumps(line, default=repr).encode() + b"\n")
