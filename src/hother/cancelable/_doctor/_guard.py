"""A server's keeper: starts it, and ends it when the doctor lets go, whichever way that comes about.

Run as a file, and without the library: ``python _guard.py SECONDS COMMAND...``. It passes SIGTERM on to the
server, which it leads in a process group; that group is ended with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from threading import Thread


def main(command: list[str]) -> int:
    """Run *command* until it ends, or our standard input does."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, close_fds=False, start_new_session=True
    ) as server:
        signal.signal(signal.SIGTERM, lambda number, frame: server.send_signal(number))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        Thread(target=_end_with_doctor, args=[server], daemon=True).start()
        code = server.wait()
        _kill(server.pid)  # workers that were left behind
    return code


def _end_with_doctor(server: subprocess.Popen[bytes]) -> None:
    while os.read(0, 1):
        pass
    _kill(server.pid)


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) & 0xFF)
