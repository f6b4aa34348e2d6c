"""Requests per second of handlers that wait 20 ms, 200 of them at a time, bare and wrapped."""

from __future__ import annotations

from ._apps import WRAPPINGS
from ._report import Series, arguments, keep
from .throughput import measure


def main() -> None:
    options = arguments(
        __doc__,
        servers=("uvicorn-httptools-uvloop", "hypercorn-trio"),
        applications=("starlette", "fastapi"),
        wrappings=tuple(WRAPPINGS),
        connections=200,
        rounds=7,
        seconds=2.0,
    )
    figures: list[Series] = []
    for server in options.servers:
        for application in options.applications:
            figures += measure(
                server,
                application,
                "/wait",
                options.wrappings,
                connections=options.connections,
                rounds=options.rounds,
                seconds=options.seconds,
            )
    keep(options.json, figures)


if __name__ == "__main__":
    main()
