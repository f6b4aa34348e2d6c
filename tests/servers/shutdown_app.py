"""A FastAPI application that records what it hears of its server's end.

The query string of a request is the key of what is recorded about it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import anyio
from fastapi import FastAPI, Request, WebSocket
from starlette.responses import StreamingResponse

from hother.cancelable.asgi import current_shutdown_token
from hother.cancelable.integrations.fastapi import (
    Grace,
    RequestCancelationMiddleware,
    RequestPolicy,
    get_request_token,
    get_shutdown_token,
)
from tests.servers.recording import record

GRACE = 0.4  #: seconds


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    """Record the application's start and its end."""
    token = current_shutdown_token()
    assert token is not None
    token.add_callback(lambda cause: record("shutdown begins", reason=cause.reason, by=cause.by))
    record("startup")
    yield
    record("shutdown")


app = FastAPI(lifespan=lifespan)
app.add_middleware(RequestCancelationMiddleware, on_shutdown=Grace(GRACE))


@asynccontextmanager
async def recorded(request: Request | WebSocket) -> AsyncGenerator[None, None]:
    """Record that a handler runs, what its token says, and how it ends."""
    key = request.url.query
    get_request_token(request).add_callback(lambda cause: record("told", key=key, reason=cause.reason))
    record("running", key=key)
    try:
        yield
    except BaseException as error:
        record("stopped", key=key, error=type(error).__name__)
        raise
    record("finished", key=key)


@app.get("/wait")
async def wait(request: Request) -> None:
    """Know nothing of the shutdown."""
    async with recorded(request):
        await anyio.sleep(60)


@app.get("/soon")
@RequestPolicy(on_shutdown="finish")
async def soon(request: Request) -> dict[str, bool]:
    """Take longer than the grace, and have a policy that allows it."""
    async with recorded(request):
        await anyio.sleep(2 * GRACE)
    return {"cancelled": get_request_token(request).is_cancelled}


@app.get("/stream")
async def stream(request: Request) -> StreamingResponse:
    """Stream until the shutdown begins, and say goodbye."""

    async def generate() -> AsyncIterator[str]:
        async with recorded(request):
            yield "data: hello\n\n"
            await get_shutdown_token(request).wait()
            yield "data: goodbye\n\n"

    return StreamingResponse(generate(), media_type="text/event-stream")


@app.get("/plain-stream")
async def plain_stream(request: Request) -> StreamingResponse:
    """Stream for ever."""

    async def generate() -> AsyncIterator[str]:
        async with recorded(request):
            while True:
                yield "."
                await anyio.sleep(0.01)

    return StreamingResponse(generate())


@app.get("/slow-clean-up")
@RequestPolicy(on_shutdown="ignore")
async def slow_clean_up(request: Request) -> None:
    """Need 0.7 seconds for what comes after."""
    async with recorded(request):
        try:
            await anyio.sleep(60)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.7)
            record("cleaned up", key=request.url.query)


@app.websocket("/ws")
async def ws(websocket: WebSocket) -> None:
    """Wait for messages."""
    await websocket.accept()
    async with recorded(websocket):
        while True:
            await websocket.send_text(await websocket.receive_text())
