"""Handlers that last until their clients leave, each in its library's own way, and that record when they end.

The query string of a request is the key of what is recorded about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
from fastapi import Depends, FastAPI
from starlette.requests import Request

from tests.servers.recording import record

from ._apps import App

POLL = 0.1
"""How often a handler asks that polls, in seconds: what is usual."""

PATHS = {"bare": "/listen", "polling": "/poll", "aiofence": "/fence", "hother-cancelable 0.11": "/block"}
"""Where the handler is that suits a wrapping; `/sleep` if it is not named here."""


@contextmanager
def recorded(request: Request) -> Iterator[None]:
    """Record when a handler begins, and when it ends."""
    key = request.url.query
    record("running", key=key)
    try:
        yield
    finally:
        record("stopped", key=key)


async def sleep(request: Request) -> None:
    """Wait for something else; who is interrupted there needs to do nothing."""
    with recorded(request):
        await anyio.sleep_forever()


async def listen(request: Request) -> None:
    """Do nothing but wait until the server says that the client has left: nobody can be faster."""
    with recorded(request):
        while (await request.receive())["type"] != "http.disconnect":
            pass


async def poll(request: Request) -> None:
    """Ask again and again."""
    with recorded(request):
        while not await request.is_disconnected():  # noqa: ASYNC110  # which is the point
            await anyio.sleep(POLL)


async def fence(request: Request) -> None:
    """Wait in a fence of aiofence's, which is told of the client."""
    from aiofence import get_current_fencing

    with recorded(request), get_current_fencing().move_on_cancel():
        await anyio.sleep_forever()


async def at_once() -> dict[str, str]:
    """Answer: the other load of the server."""
    return {"hello": "world"}


def application() -> App:
    """Make the application."""
    app = FastAPI()
    app.get("/")(at_once)
    for path, handler in {"/sleep": sleep, "/listen": listen, "/poll": poll, "/fence": fence}.items():
        app.get(path)(handler)
    _add_block(app)
    return app


def _add_block(app: FastAPI) -> None:
    from hother.cancelable.integrations.fastapi import cancelable_dependency

    @app.get("/block")
    async def block(request: Request, cancel: Any = Depends(cancelable_dependency)) -> None:
        with recorded(request):
            async with cancel:
                await anyio.sleep_forever()
