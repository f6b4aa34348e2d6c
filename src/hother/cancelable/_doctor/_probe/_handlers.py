"""Handlers of all kinds, none of which knows how it will end."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import anyio
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Depends,
    FastAPI,
    HTTPException,
    Request,
    UploadFile,
    WebSocket,
)
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.sse import EventSourceResponse
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.websockets import WebSocketDisconnect

from ..._scope import Cancelable
from ...integrations.fastapi import (
    cancelable_dependency,
    cancelable_streaming_response,
    get_request_token,
    with_cancelation,
)
from ._journal import BIG_FILE
from ._witness import Run, run_of

CHUNK = b"x" * 65_536
CHUNKS = 400  #: of a stream that fills every buffer: 25 MiB

router = APIRouter()
trail: ContextVar[str] = ContextVar("trail", default="nobody's")


def create_app() -> FastAPI:
    """Make the application."""
    app = FastAPI()
    app.include_router(router)
    app.add_exception_handler(LookupError, _found_nothing)
    return app


async def _found_nothing(request: Request, error: Exception) -> Response:
    return JSONResponse({"handled": str(error)}, 418)


@contextmanager
def watching(connection: HTTPConnection, **facts: Any) -> Generator[Run, None, None]:
    """Tell that a handler begins, and how it ends."""
    run = run_of(connection.scope)
    run.token = token = get_request_token(connection)
    remove_callback = token.add_callback(lambda cause: run.tell("told", reason=str(cause.reason)))
    run.tell("began", **facts)
    how = "finished"
    try:
        yield run
    except BaseException as error:
        how = type(error).__name__
        raise
    finally:
        remove_callback()
        cause = token.cancelation
        run.tell("ended", how=how, reason=None if cause is None else str(cause.reason))


@router.get("/ping")
async def ping() -> str:
    """Answer at once."""
    return "pong"


@router.get("/handler")
@router.post("/handler")
async def handler(request: Request) -> dict[str, bool]:
    """Work. Nothing was ever received when this begins."""
    with watching(request) as run:
        await run.work()
    return {"ok": True}


@router.post("/after-body")
async def after_body(request: Request) -> dict[str, bool]:
    """Work, when all of the body is here."""
    await request.body()
    with watching(request) as run:
        await run.work()
    return {"ok": True}


@router.post("/upload")
async def upload(request: Request) -> dict[str, object]:
    """Take a body in."""
    digest, size, begun = sha256(), 0, False
    run = run_of(request.scope)
    await anyio.sleep(float(run.query.get("late", 0)))
    with watching(request) as run:
        async for part in request.stream():
            digest.update(part)
            size += len(part)
            if not begun and size:
                begun = True
                run.tell("part")
            await anyio.sleep(float(run.query.get("pace", 0)))
    return {"size": size, "sha256": digest.hexdigest()}


@router.post("/form")
async def form(request: Request, file: UploadFile) -> dict[str, object]:
    """Take a form in, with a file."""
    with watching(request):
        data = await file.read()
    return {"size": len(data), "sha256": sha256(data).hexdigest()}


class Started(Response):
    """A response that has started, and is in no hurry."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Start."""
        with watching(HTTPConnection(scope)) as run:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
            run.tell("started")
            await run.work()
            await send({"type": "http.response.body", "body": b"last"})


@router.get("/started")
async def started(request: Request) -> Started:
    """Start a response."""
    return Started()


@router.get("/stream")
async def stream(request: Request) -> StreamingResponse:
    """Send a little, again and again."""

    async def generate() -> AsyncIterator[bytes]:
        with watching(request) as run:
            for number in range(1000):
                yield b"."
                if not number:
                    run.tell("started")
                await anyio.sleep(0.02)

    return StreamingResponse(generate())


@router.get("/flood")
async def flood(request: Request, cancel: Annotated[Cancelable, Depends(cancelable_dependency)]) -> Response:
    """Send more than any buffer holds, as a part of an operation: whoever waits in send() is closed then."""
    return await cancelable_streaming_response(_flood(request), cancel)


@router.get("/plain-flood")
async def plain_flood(request: Request) -> StreamingResponse:
    """Send more than any buffer holds."""
    return StreamingResponse(_flood(request))


async def _flood(request: Request) -> AsyncIterator[bytes]:
    with watching(request) as run:
        for _ in range(CHUNKS):
            run.tell("sends")
            yield CHUNK
            await anyio.sleep(0.0005)
        await run.work()


@router.get("/background")
async def background(request: Request, tasks: BackgroundTasks) -> dict[str, bool]:
    """Answer, and work."""

    async def work() -> None:
        with watching(request) as run:
            await run.work(float(run.query.get("for", 0.5)))

    tasks.add_task(work)
    return {"ok": True}


# --- What FastAPI and Starlette have for streams


@router.get("/operation-stream")
async def operation_stream(
    request: Request, cancel: Annotated[Cancelable, Depends(cancelable_dependency)]
) -> Response:
    """Stream as a part of an operation."""

    async def generate() -> AsyncIterator[str]:
        with watching(request) as run:
            yield "first"
            run.tell("started")
            await run.work()

    return await cancelable_streaming_response(generate(), cancel)


@router.get("/thread-stream")
async def thread_stream(request: Request) -> StreamingResponse:
    """Stream what a plain generator makes, in a thread."""

    def generate() -> Iterator[bytes]:
        with watching(request) as run:
            for number in range(1000):
                yield b"."
                if not number:
                    run.tell("started")
                time.sleep(0.02)

    return StreamingResponse(generate())


@router.get("/lines")
async def lines(request: Request) -> AsyncIterable[dict[str, int]]:
    """Stream lines of JSON, by FastAPI."""
    with watching(request) as run:
        for number in range(1000):
            yield {"number": number}
            if not number:
                run.tell("started")
            await anyio.sleep(0.02)


@router.get("/events", response_class=EventSourceResponse)
async def events(request: Request) -> AsyncIterable[dict[str, int]]:
    """Stream server-sent events, by FastAPI."""
    with watching(request) as run:
        for number in range(1000):
            yield {"number": number}
            if not number:
                run.tell("started")
            await anyio.sleep(0.02)


@router.get("/file")
async def file(request: Request, tasks: BackgroundTasks) -> FileResponse:
    """Send a file, and work."""

    async def work() -> None:
        with watching(request) as run:
            await run.work(0.3)

    tasks.add_task(work)
    return FileResponse(Path(__file__), background=tasks)


@router.get("/big-file")
async def big_file(request: Request) -> FileResponse:
    """Send a file that fills every buffer."""
    with watching(request):
        return FileResponse(os.environ[BIG_FILE])


# --- Dependencies


@contextmanager
def _session(run: Run) -> Generator[None, None, None]:
    run.tell("session taken")
    try:
        yield
    finally:
        run.tell("session given back")


async def session(request: Request) -> AsyncGenerator[str, None]:
    """A database session, rolled back in the shield that this takes."""
    run = run_of(request.scope)
    before = trail.set(run.name)
    with _session(run):
        try:
            yield run.name
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(1):
                await anyio.sleep(0.05)  # the rollback
            try:
                trail.reset(before)
            except ValueError:
                run.tell("context lost")


@router.get("/session")
async def with_session(request: Request, name: Annotated[str, Depends(session)]) -> dict[str, bool]:
    """Work with a session."""
    with watching(request) as run:
        await run.work()
    return {"ok": True}


# --- Deadlines of an operation


@router.get("/limited")
@with_cancelation(timeout=0.3)
async def limited(request: Request) -> None:
    """Work for too long."""
    with watching(request) as run:
        await run.work()


@router.get("/limited-operation")
async def limited_operation(
    request: Request,
    cancel: Annotated[Cancelable, Depends(cancelable_dependency.with_options(timeout=0.3))],
) -> None:
    """Work for too long, in a block."""
    async with cancel:
        with watching(request) as run:
            await run.work()


# --- Errors, threads and cleanup


@router.get("/handled")
async def handled(request: Request) -> None:
    """Raise what the application has a handler for."""
    with watching(request):
        raise LookupError("nothing")


@router.get("/http-error")
async def http_error(request: Request) -> None:
    """Raise what the framework has a handler for."""
    with watching(request):
        raise HTTPException(409, "taken")


@router.get("/thread")
def thread(request: Request) -> None:
    """Work in a thread, and ask now and then."""
    with watching(request):
        for _ in range(2000):
            time.sleep(0.01)
            get_request_token(request).check()


@router.get("/deaf-thread")
def deaf_thread(request: Request) -> None:
    """Work in a thread that does not ask."""
    with watching(request):
        time.sleep(1.2)


@router.get("/cleanup")
async def cleanup(request: Request) -> None:
    """Clean up for longer than a server's patience."""
    with watching(request) as run:
        try:
            await run.work()
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(2):
                await anyio.sleep(0.7)
                run.tell("cleaned")


@router.get("/asks")
async def asks(request: Request) -> dict[str, bool]:
    """Ask as Starlette has it, where nothing interrupts."""
    first = await request.is_disconnected()
    with watching(request, first=first) as run, anyio.CancelScope(shield=True), anyio.move_on_after(2):
        while not await request.is_disconnected():  # noqa: ASYNC110 (polling is what is tested)
            await anyio.sleep(0.005)
        run.tell("noticed")
    return {"first": first}


# --- WebSockets


@router.websocket("/ticker")
async def ticker(websocket: WebSocket) -> None:
    """Only send."""
    await websocket.accept()
    with watching(websocket):
        while True:
            await websocket.send_text("tick")
            await anyio.sleep(0.02)


@router.websocket("/busy")
async def busy(websocket: WebSocket) -> None:
    """Neither send nor receive."""
    await websocket.accept()
    with watching(websocket) as run:
        await run.work()


@router.websocket("/talk")
async def talk(websocket: WebSocket) -> None:
    """Talk, and say goodbye in its own time."""
    await websocket.accept()
    with watching(websocket) as run:
        try:
            while True:
                await websocket.send_text(await websocket.receive_text())
        except WebSocketDisconnect as error:
            await anyio.sleep(0.1)
            run.tell("goodbye", code=error.code)


@router.websocket("/closes")
async def closes(websocket: WebSocket) -> None:
    """Close, while whoever reads ahead is waiting for the client."""
    await websocket.accept()
    with watching(websocket):
        await anyio.sleep(0.1)
        await websocket.close(4009, "done")
