"""A FastAPI application behind the middleware: the README's three programs, and a few more.

The query string of a request is the key of what is recorded about it.
"""

from __future__ import annotations

import gc
import hashlib
import os
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import anyio
from fastapi import BackgroundTasks, Depends, FastAPI, Request, UploadFile, WebSocket, WebSocketDisconnect
from starlette.responses import StreamingResponse

from hother.cancelable import Cancelable, CancelationError, current_operation
from hother.cancelable.integrations.fastapi import (
    CancelableWebSocket,
    RequestCancelationMiddleware,
    cancelable_dependency,
    cancelable_streaming_response,
    get_request_token,
    with_cancelation,
)
from tests.servers.recording import record
from tests.servers.tasks import count_tasks

app = FastAPI()
app.add_middleware(RequestCancelationMiddleware)


@asynccontextmanager
async def recorded(request: Request | WebSocket) -> AsyncGenerator[None, None]:
    """Record that a handler runs, and how it ends."""
    key = request.url.query
    record("running", key=key)
    try:
        yield
    except BaseException as error:
        record("stopped", key=key, error=type(error).__name__, reason=get_request_token(request).cancelation)
        raise
    record("finished", key=key)


async def long_operation(request: Request) -> dict[str, bool]:
    """Take a minute."""
    async with recorded(request):
        await anyio.sleep(60)
    return {"ok": True}


@app.get("/data")
async def get_data(request: Request, cancel: Cancelable = Depends(cancelable_dependency)) -> dict[str, bool]:
    """The first program."""
    async with cancel:
        return await long_operation(request)


@app.get("/slow")
@with_cancelation(timeout=30.0)
async def slow_endpoint(request: Request) -> None:
    """The second program."""
    assert current_operation() is not None
    await long_operation(request)


@app.get("/stream")
async def stream_data(
    request: Request, cancel: Cancelable = Depends(cancelable_dependency)
) -> StreamingResponse:
    """The third program."""

    async def generate() -> AsyncIterator[str]:
        async with recorded(request):
            for i in range(1000):
                await anyio.sleep(0.1)
                yield f"data: {i}\n\n"

    return await cancelable_streaming_response(generate(), cancel, media_type="text/event-stream")


@app.get("/plain")
async def plain(request: Request) -> dict[str, bool]:
    """A handler that knows nothing of the library."""
    return await long_operation(request)


@app.get("/plain-stream")
async def plain_stream(request: Request) -> StreamingResponse:
    """A stream that knows nothing of the library."""

    async def generate() -> AsyncIterator[str]:
        async with recorded(request):
            while True:
                yield "."
                await anyio.sleep(0.01)

    return StreamingResponse(generate())


@app.get("/thread")
def in_thread(request: Request) -> None:
    """A ``def`` endpoint that asks its token."""
    record("running", key=request.url.query)
    token = get_request_token(request)
    try:
        for _ in range(6000):
            time.sleep(0.01)
            token.check()
    except CancelationError as error:
        record("stopped", key=request.url.query, error=type(error).__name__)
        raise


@app.get("/deadline")
async def deadline(
    request: Request, cancel: Cancelable = Depends(cancelable_dependency.with_options(timeout=0.1))
) -> dict[str, bool]:
    """An operation with a deadline."""
    async with cancel:
        return await long_operation(request)


@app.get("/background")
async def background(request: Request, tasks: BackgroundTasks) -> dict[str, bool]:
    """A task that outlives the connection."""

    async def work() -> None:
        async with recorded(request):
            await anyio.sleep(0.3)
        record("cancelled", key=request.url.query, value=get_request_token(request).is_cancelled)

    tasks.add_task(work)
    return {"ok": True}


async def slow_dependency() -> None:
    """Wait before the body is read."""
    await anyio.sleep(0.2)


@app.post("/upload")
async def upload(request: Request, _: Annotated[None, Depends(slow_dependency)]) -> dict[str, Any]:
    """Read a body that has been waiting."""
    digest, size = hashlib.sha256(), 0
    async for chunk in request.stream():
        digest.update(chunk)
        size += len(chunk)
    return {"sha256": digest.hexdigest(), "size": size}


@app.post("/multipart")
async def multipart(file: UploadFile) -> dict[str, Any]:
    """Read a form."""
    data = await file.read()
    return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


@app.get("/is-disconnected")
async def is_disconnected(request: Request) -> dict[str, bool]:
    """Ask as Starlette has it, in a section that the middleware cannot interrupt."""
    key = request.url.query
    first = await request.is_disconnected()
    record("running", key=key)
    with anyio.CancelScope(shield=True), anyio.move_on_after(5):
        while not await request.is_disconnected():  # noqa: ASYNC110 (polling is what is tested)
            await anyio.sleep(0.005)
        record("noticed", key=key)
    return {"first": first}


@app.websocket("/ws/send")
async def ws_send(websocket: WebSocket) -> None:
    """Only send."""
    await websocket.accept()
    async with recorded(websocket):
        while True:
            await websocket.send_text("tick")
            await anyio.sleep(0.01)


@app.websocket("/ws/talk")
async def ws_talk(websocket: WebSocket) -> None:
    """Talk, and say goodbye."""
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        await anyio.sleep(0.1)
        record("said goodbye", key=websocket.url.query)


@app.websocket("/ws/cancelable")
async def ws_cancelable(
    websocket: WebSocket, cancel: Cancelable = Depends(cancelable_dependency.with_options(timeout=0.2))
) -> None:
    """Talk for a while."""
    connection = CancelableWebSocket(websocket, cancel)
    await connection.accept()
    async with cancel:
        while True:
            await connection.send_text(await connection.receive_text())


@app.get("/leftovers")
async def leftovers() -> dict[str, Any]:
    """Count what is in the process besides this request."""
    gc.collect()
    return {"tasks": count_tasks(), **process()}


def process() -> dict[str, Any]:
    """Look at the process from outside of the event loop."""
    counted = {"Cancelable", "CancelationToken", "Exchange", "Reader", "Block"}
    objects = [type(thing).__name__ for thing in gc.get_objects()]
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "threads": threading.active_count(),
        "files": len(list(Path("/proc/self/fd").iterdir())),
        "objects": {name: objects.count(name) for name in counted},
        "resident": pages * os.sysconf("SC_PAGESIZE"),
    }
