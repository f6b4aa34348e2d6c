"""The command line: ``python -m hother.cancelable demo``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Instead of those that the process was started with.

    Returns:
        The exit code: 0 if all went well, 1 if a promise was not kept, 2 for a command that cannot run,
        130 after Ctrl-C.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    try:
        from ._demo import run

        return run(serve=options.serve, as_json=options.json, color=not options.no_color)
    except KeyboardInterrupt:  # before the event loop took over the signals, or after
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hother.cancelable",
        description="Request-scoped cancelation for FastAPI and Starlette, on asyncio and Trio.",
    )
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="watch handlers stop as their clients hang up",
        description="Serves one FastAPI app on uvicorn (asyncio) and on Hypercorn (Trio), with the "
        "middleware and without it; lets clients hang up, and shows when the handlers stop. "
        "Takes about 5 seconds.",
    )
    how = demo.add_mutually_exclusive_group()
    how.add_argument("--serve", action="store_true", help="keep the servers up, to try them by hand")
    how.add_argument("--json", action="store_true", help="print the measurements as JSON, and nothing else")
    demo.add_argument("--no-color", action="store_true", help="print without colors")
    return parser


if __name__ == "__main__":
    sys.exit(main())
