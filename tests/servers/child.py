"""The process that a real server runs in: ``python -m tests.servers.child KIND APP [GRACE]``.

It records the event ``ready`` once clients can connect, and ends when its parent does. All imports
of servers are late, so that tests can read `KINDS` without them.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import sys
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from threading import Thread
from typing import Any, Literal

from tests.servers.recording import record


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to run an application."""

    server: Literal["uvicorn", "hypercorn"]
    loop: Literal["asyncio", "uvloop", "trio"]
    http: Literal["h11", "httptools"] = "h11"
    ws: Literal["websockets", "wsproto"] = "websockets"  #: uvicorn's; Hypercorn has only the latter

    def __str__(self) -> str:
        parts = (self.server, self.http, self.ws, self.loop)
        return "-".join(part for part in parts if part not in {"h11", "websockets"})

    @property
    def http_version(self) -> str:
        """The highest version of HTTP that it speaks without TLS."""
        return "2" if self.server == "hypercorn" else "1.1"

    @property
    def missing(self) -> list[str]:
        """The packages that it needs and that are not installed."""
        needs = (self.server, self.loop, self.http, self.ws)
        return [package for package in needs if find_spec(package) is None]


KINDS = {
    str(kind): kind
    for kind in (
        Kind("uvicorn", "asyncio"),
        Kind("uvicorn", "asyncio", "httptools"),
        Kind("uvicorn", "uvloop", "httptools"),
        Kind("hypercorn", "asyncio"),
        Kind("hypercorn", "trio"),
    )
}

WEBSOCKET_KINDS = {str(kind): kind for kind in (Kind("uvicorn", "asyncio", ws="wsproto"),)}
"""More of them, which differ in nothing but WebSockets."""


def main(name: str, path: str, grace: str | None = None) -> None:
    """Serve the application at *path* until SIGTERM.

    Args:
        name: A key of `KINDS` or `WEBSOCKET_KINDS`.
        path: The application, as ``module:attribute``.
        grace: How long a graceful shutdown may take, in seconds; by default what the server likes.
    """
    faulthandler.enable()
    Thread(target=_end_with_parent, daemon=True).start()
    module, _, attribute = path.partition(":")
    app = getattr(import_module(module), attribute)
    kind = {**KINDS, **WEBSOCKET_KINDS}[name]
    # As a server's own: asyncio sends at once on those that are known to be TCP, and else waits for clients.
    sock = socket.socket(proto=socket.IPPROTO_TCP)
    sock.bind(("127.0.0.1", 0))
    serve = {"uvicorn": _uvicorn, "hypercorn": _hypercorn}[kind.server]
    serve(app, kind, sock, None if grace is None else float(grace))


def _end_with_parent() -> None:
    # The parent never writes. It is os.read() because sys.stdin has a lock, which the
    # interpreter would want when it exits.
    os.read(0, 1)
    os._exit(1)


def _ready(sock: socket.socket) -> None:
    record("ready", port=sock.getsockname()[1])


def _uvicorn(app: Any, kind: Kind, sock: socket.socket, grace: float | None) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            _ready(sock)

    options: dict[str, Any] = {"timeout_graceful_shutdown": grace}
    ws = "wsproto" if kind.ws == "wsproto" else "auto"  # its name for the other has changed
    config = uvicorn.Config(app, loop=kind.loop, http=kind.http, ws=ws, access_log=False, **options)
    Server(config).run(sockets=[sock])


def _hypercorn(app: Any, kind: Kind, sock: socket.socket, grace: float | None) -> None:
    from hypercorn import Config

    config = Config()
    config.bind = [f"fd://{sock.fileno()}"]
    if grace is not None:
        config.graceful_timeout = grace
    serve = {"asyncio": _hypercorn_asyncio, "trio": _hypercorn_trio}[kind.loop]
    serve(app, config, partial(_ready, sock))


# Both take hold of the signal before the application starts, as the servers' own command lines do,
# so that an application can wrap the handler. Hypercorn calls the trigger once it accepts connections.


def _hypercorn_asyncio(app: Any, config: Any, ready: partial[None]) -> None:
    import asyncio

    from hypercorn.asyncio import serve

    async def run() -> None:
        terminated = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)

        async def trigger() -> None:
            ready()
            await terminated.wait()

        await serve(app, config, shutdown_trigger=trigger)

    asyncio.run(run())


def _hypercorn_trio(app: Any, config: Any, ready: partial[None]) -> None:
    import trio
    from hypercorn.trio import serve

    async def run() -> None:
        with trio.open_signal_receiver(signal.SIGTERM) as signals:

            async def trigger() -> None:
                ready()
                await anext(signals)

            await serve(app, config, shutdown_trigger=trigger)

    trio.run(run)


if __name__ == "__main__":
    main(*sys.argv[1:])
