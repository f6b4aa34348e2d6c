"""A child process: serves the app twice on one backend, with the middleware and without it.

Started as ``python -m hother.cancelable._demo._server BACKEND``. Its standard output is the journal;
it exits at once when its standard input ends, so that it cannot outlive its parent.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Coroutine
from threading import Thread
from typing import Any, TypeAlias, cast

import anyio
from fastapi import FastAPI

from ._app import create_app
from ._journal import journal

Serve: TypeAlias = Callable[[FastAPI, socket.socket], Coroutine[Any, Any, None]]

HOST = "127.0.0.1"


async def serve_on_uvicorn(app: FastAPI, listener: socket.socket) -> None:
    """Serve *app* on uvicorn, in the running asyncio loop."""
    import uvicorn

    await uvicorn.Server(uvicorn.Config(app, log_level="warning")).serve([listener])


async def serve_on_hypercorn(app: FastAPI, listener: socket.socket) -> None:
    """Serve *app* on Hypercorn, in the running Trio loop."""
    from hypercorn.config import Config
    from hypercorn.trio import serve  # pyright: ignore[reportUnknownVariableType]

    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.loglevel = "WARNING"
    await serve(cast("Any", app), config, shutdown_trigger=anyio.sleep_forever, mode="asgi")


SERVERS: dict[str, Serve] = {"asyncio": serve_on_uvicorn, "trio": serve_on_hypercorn}


def main(backend: str) -> None:
    """Serve until the parent lets go of the standard input."""
    Thread(target=_exit_with_parent, daemon=True).start()
    tell = journal(os.dup(1))
    os.dup2(2, 1)  # whatever else is printed must not get into the journal
    listeners = {True: _listen(), False: _listen()}
    apps = {guarded: create_app(tell, with_middleware=guarded) for guarded in listeners}

    async def serve_all() -> None:
        async with anyio.create_task_group() as tasks:
            for guarded, listener in listeners.items():
                tasks.start_soon(SERVERS[backend], apps[guarded], listener)

    ports = {guarded: listener.getsockname()[1] for guarded, listener in listeners.items()}
    tell({"event": "listens", "with": ports[True], "without": ports[False]})
    anyio.run(serve_all, backend=backend)


def _listen() -> socket.socket:
    """Open a port of the system's choice. Clients may connect from now on: they wait for the server."""
    listener = socket.create_server((HOST, 0))
    listener.setblocking(False)
    return listener


def _exit_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(0)  # whatever the handlers are doing: nobody is there to see it


if __name__ == "__main__":
    main(sys.argv[1])
