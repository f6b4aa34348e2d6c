"""The demo: one FastAPI app on two backends, clients that hang up, and handlers that stop.

Two processes serve it, one on asyncio and one on Trio, each once with the middleware and once
without; the parent plays the clients.

* in the children: ``_server`` serves ``_app``, whose handlers write a ``_journal``;
* in the parent: ``_children`` starts them, ``_clients`` come and leave, ``_runs`` collects what the
  journals say, ``_scenarios`` knows what is promised;
* ``_play`` does all that, once; ``_show`` shows it, with ``_screen`` and ``_timeline``; ``_serve`` only
  keeps the servers up, for trying by hand; ``_interrupts`` ends either in good order.

Nothing here is imported by the rest of the library.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

_NEEDED = ("fastapi", "hypercorn", "rich", "trio", "uvicorn", "websockets")


def run(*, serve: bool = False, as_json: bool = False, color: bool = True) -> int:
    """Run the demo.

    Args:
        serve: Keep the servers up until Ctrl-C, instead of playing the scenarios.
        as_json: Print the measurements as JSON, instead of showing them.
        color: Whether to print in colors, on a terminal that has them.

    Returns:
        The exit code: 0 if every scenario did what it promises, 1 if not, 2 if packages are missing,
        128 and the signal's number after a signal (130 for Ctrl-C).
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        print('the demo needs: pip install "hother-cancelable[demo]"', file=sys.stderr)
        print(f"(not installed: {', '.join(missing)})", file=sys.stderr)
        return 2
    return _start(serve, as_json, color)


def _start(serve: bool, as_json: bool, color: bool) -> int:
    from ._interrupts import run_until_interrupted
    from ._screen import Screen
    from ._serve import serve_until_cancelled
    from ._show import show, show_as_json

    screen = Screen(no_color=not color, highlight=False)
    play = serve_until_cancelled if serve else show_as_json if as_json else show
    return run_until_interrupted(lambda: play(screen))
