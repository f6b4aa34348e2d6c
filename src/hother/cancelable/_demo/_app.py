"""The app: handlers of the kinds that people pay for, each good for about three seconds of work."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from hashlib import sha256

import anyio
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse

from .._scope import Cancelable, current_operation
from ..integrations.fastapi import (
    RequestCancelationMiddleware,
    cancelable_dependency,
    cancelable_streaming_response,
    with_cancelation,
)
from ._journal import Tell, Work, working

KIB = 1024

router = APIRouter()


def create_app(tell: Tell, *, with_middleware: bool) -> FastAPI:
    """Make the app. With or without the middleware, all else is the same.

    Args:
        tell: Writes into the journal.
        with_middleware: Whether to add the `RequestCancelationMiddleware`.
    """
    app = FastAPI(title="hother.cancelable demo")
    app.state.tell = tell
    app.include_router(router)
    if with_middleware:
        app.add_middleware(RequestCancelationMiddleware)
    return app


@router.get("/")
async def index() -> str:
    """Answer at once."""
    return "up"


@router.get("/report")
async def report(request: Request) -> dict[str, str]:
    """Build a report. An ordinary handler: it knows nothing of cancelation."""
    with working(request, "report", 30) as work:
        for _ in work.units():
            await anyio.sleep(0.1)  # queries and calls of other services
    return {"report": "done"}


@router.get("/export")
@with_cancelation
def export(request: Request) -> dict[str, str]:
    """Export through a driver that blocks: nothing can interrupt a thread, so it asks now and then."""
    operation = current_operation()
    assert operation is not None
    with working(request, "export", 60) as work:
        for _ in work.units():
            operation.check()
            time.sleep(0.05)
    return {"export": "done"}


@router.get("/chat")
async def chat(
    request: Request, prompt: int = 2, cancel: Cancelable = Depends(cancelable_dependency)
) -> StreamingResponse:
    """Answer token by token, after reading a prompt: a stand-in for a language model.

    Args:
        request: The request.
        prompt: How long the prompt is, in units of a tenth of a second.
        cancel: The operation that the stream belongs to.
    """
    with working(request, "prompt", prompt) as work:
        for _ in work.units():
            await anyio.sleep(0.1)
    return await cancelable_streaming_response(_tokens(request), cancel)


async def _tokens(request: Request) -> AsyncIterator[str]:
    with working(request, "tokens", 100) as work:
        for number in work.units():
            await anyio.sleep(0.03)
            yield f"token{number} "


@router.put("/upload")
async def upload(request: Request, pace: float = 0.0) -> dict[str, object]:
    """Take a body in, part by part as it arrives.

    Args:
        request: The request.
        pace: How long storing a KiB takes, in seconds.
    """
    digest, size = sha256(), 0
    with working(request, "upload", int(request.headers.get("content-length", 0)) // KIB) as work:
        async for part in request.stream():
            digest.update(part)
            stored, size = size, size + len(part)
            await _store(size // KIB - stored // KIB, pace, work)
    return {"size": size, "sha256": digest.hexdigest()}


async def _store(kib: int, pace: float, work: Work) -> None:
    for _ in range(kib):
        await anyio.sleep(pace)
        work.did(1)


@router.websocket("/ticker")
async def ticker(websocket: WebSocket) -> None:
    """Send a result each second. It never receives, so it is never told that its client left."""
    await websocket.accept()
    with working(websocket, "ticker", 30) as work:
        for number in work.units():
            if number % 10 == 0:
                await websocket.send_json({"result": number})
            await anyio.sleep(0.1)
    await websocket.close()


@router.post("/order")
async def order(request: Request, background: BackgroundTasks) -> dict[str, str]:
    """Answer at once, and do the work afterwards: the response is complete, so nothing may stop that."""
    background.add_task(_fulfil, request)
    return {"order": "taken"}


async def _fulfil(request: Request) -> None:
    with working(request, "order", 12) as work:
        for _ in work.units():
            await anyio.sleep(0.1)
