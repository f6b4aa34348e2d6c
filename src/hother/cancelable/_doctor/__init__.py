"""The doctor: whether requests are cancelled as they should be, on every server that is installed.

Every way in which a request may end, at every moment that it may be in, on real servers with their own
command lines; and what applications can do by themselves there, as the proof of what a server cannot do.

* in the servers: ``_probe``, with the applications, and the ``_journal`` that they write;
* to start one: ``_servers`` knows how, ``_process`` does it, and ``_guard`` sees to it that it ends;
* clients by hand: ``_http1``, ``_http2`` and ``_websocket`` on ``_sockets``; ``_answers`` is what they got;
* scenarios: ``_matrix`` crosses ``_moments`` and ``_ways``; ``_bodies``, ``_frameworks``, ``_websockets``,
  ``_blind_spots`` and ``_shutdown`` are the others; ``_catalogue`` has them all;
* to judge: ``_stage`` is what one is played on, ``_observation`` what was seen and what was expected,
  ``_runner`` and ``_work`` play them all;
* to tell: ``_report`` for the eye and for programs, ``_command`` for all of it;
* ``_user_app`` and ``_advice`` look at the application of a user.

Nothing here is imported by the rest of the library.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

_NEEDED = ("fastapi", "h11", "h2", "python_multipart", "rich", "wsproto")


@dataclass(frozen=True, slots=True)
class Options:
    """What the doctor is asked to do; the command line documents them."""

    servers: Sequence[str] = ()
    only: str = "*"
    json: str | None = None
    lists: bool = False
    color: bool = True
    app: str | None = None
    path: str | None = None
    deadline: float | None = None
    headers: Sequence[str] = ()


def run(options: Options) -> int:
    """Run the doctor.

    Returns:
        The exit code: 0 if nothing failed, 1 if something did, 2 if packages or servers are missing or
        an option is wrong, 128 and the signal's number after a signal (130 for Ctrl-C).
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        print('the doctor needs: pip install "hother-cancelable[doctor]"', file=sys.stderr)
        print(f"(not installed: {', '.join(missing)})", file=sys.stderr)
        return 2
    if sys.platform == "win32":
        print(
            "the doctor needs sockets that processes can share, and signals: not on Windows", file=sys.stderr
        )
        return 2
    from ._command import start

    return start(options)
