"""The command line: ``python -m hother.cancelable demo`` and ``... doctor``."""

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
        return _COMMANDS[options.command](options)
    except KeyboardInterrupt:  # before the event loop took over the signals, or after
        return 130


def _demo(options: argparse.Namespace) -> int:
    from ._demo import run

    return run(serve=options.serve, as_json=options.json, color=not options.no_color)


def _doctor(options: argparse.Namespace) -> int:
    from ._doctor import Options, run

    return run(
        Options(
            servers=options.server,
            only=options.only,
            json=options.json,
            lists=options.list,
            color=not options.no_color,
            app=options.app,
            path=options.path,
            deadline=options.deadline,
            headers=options.header,
        )
    )


_COMMANDS = {"demo": _demo, "doctor": _doctor}


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
    _add_doctor(commands)
    return parser


def _add_doctor(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="see what holds on your servers, and in your application",
        description="Ends requests in every way at every moment, on the servers that are installed, and sees "
        "what becomes of them; what a server cannot do is proven by an application without the middleware. "
        "All servers take about 4 minutes.",
    )
    doctor.add_argument(
        "--server", action="append", default=[], metavar="NAME", help="this server only; may be repeated"
    )
    doctor.add_argument("--only", default="*", metavar="PATTERN", help="these scenarios only, as 'close/*'")
    doctor.add_argument("--json", metavar="FILE", help="write all that was seen to FILE")
    doctor.add_argument("--list", action="store_true", help="list the servers and the scenarios")
    doctor.add_argument("--no-color", action="store_true", help="print without colors")
    app = doctor.add_argument_group("your application")
    app.add_argument("--app", metavar="MODULE:APP", help="examine this application, with its middleware")
    app.add_argument("--path", help="a GET of it that is slow, or streams")
    app.add_argument("--deadline", type=float, metavar="SECONDS", help="when it must be answered")
    app.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="what it wants to see; may be repeated",
    )


if __name__ == "__main__":
    sys.exit(main())
