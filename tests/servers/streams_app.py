"""Streams that record how they end.

The query string of a request is the key of what is recorded about it.
"""

from __future__ import annotations

import gc
import os
import resource
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hother.cancelable import Cancelable
from hother.cancelable.integrations.starlette import (
    Drain,
    RequestCancelationMiddleware,
    ResumableEvents,
    ServerSentEvent,
    cancelable_sse_response,
    cancelable_streaming_response,
    get_request_token,
)
from tests.servers.recording import record
from tests.servers.tasks import count_tasks

feeds = ResumableEvents(window=5)
closed: Counter[str] = Counter()
OURS = {
    "Cancelable",
    "CancelationToken",
    "Exchange",
    "Reader",
    "Block",
    "Delivery",
    "Outlet",
    "Courier",
    "Feed",
}


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Have room for many clients, and for those who come back."""
    _soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 8192), most))
    async with feeds:
        yield


def operation(request: Request, timeout: float | None = None) -> Cancelable:
    """Make the operation of a stream."""
    return Cancelable(timeout=timeout, tokens=[get_request_token(request)])


async def ticks(key: str, pace: float = 0.1) -> AsyncGenerator[str, None]:
    """Tick for ever, and record the end, each time that there is one."""
    record("running", key=key)
    try:
        for number in range(1_000_000):
            yield f"data: {number}\n\n"
            await anyio.sleep(pace)
    finally:
        closed[key] += 1
        record("closed", key=key, times=closed[key])


async def events(key: str) -> AsyncGenerator[ServerSentEvent, None]:
    """Tick as events."""
    record("running", key=key)
    try:
        for number in range(1_000_000):
            yield ServerSentEvent(str(number))
            await anyio.sleep(0.1)
    finally:
        record("closed", key=key)


async def stream(request: Request) -> Response:
    """Tick."""
    return await cancelable_streaming_response(ticks(request.url.query), operation(request))


async def crowd(request: Request) -> Response:
    """Tick so slowly that a thousand streams are not more than a server can send."""
    return await cancelable_streaming_response(ticks(request.url.query, pace=2), operation(request))


class Floor(Response):
    """What a stream's end cannot be faster than: it only waits for the server to say that the client left."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send one piece, and wait."""
        key = scope["query_string"].decode()
        record("running", key=key)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        record("closed", key=key)


async def floor(_: Request) -> Response:
    """Wait for the client's leaving, by hand."""
    return Floor()


class Told:
    """Records when the server says that a client has left; around the middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope.get("path") != "/crowd":
            await self.app(scope, receive, send)
            return

        async def told() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                record("told", key=scope["query_string"].decode())
            return message

        await self.app(scope, told, send)


async def sse(request: Request) -> Response:
    """Tick as events."""
    return cancelable_sse_response(events(request.url.query), operation(request))


async def deadline(request: Request) -> Response:
    """Tick for a quarter of a second."""
    ending: Any = request.path_params["ending"]
    return cancelable_sse_response(events(request.url.query), operation(request, 0.25), ending=ending)


async def chunks(request: Request) -> Response:
    """Send three bytes at once, and then one more, in chunks of two."""

    async def generate() -> AsyncIterator[str]:
        yield "abc"
        await anyio.sleep(0.5)
        yield "d"

    return await cancelable_streaming_response(generate(), operation(request), chunk_size=2)


async def quiet(request: Request) -> Response:
    """Say nothing but heartbeats."""

    async def generate() -> AsyncIterator[str]:
        await anyio.sleep(0.5)
        yield "late"

    return cancelable_sse_response(generate(), operation(request), heartbeat=0.1)


async def write(request: Request) -> Response:
    """Take a fifth of a second for each item, and record it."""
    key = request.url.query

    async def generate() -> AsyncIterator[str]:
        for number in range(1_000_000):
            record("begun", key=key)
            await anyio.sleep(0.2)
            record("written", key=key, number=number)
            yield "x"

    return await cancelable_streaming_response(generate(), operation(request), shield="item")


async def model(request: Request) -> Response:
    """Send tokens for half a second, and then what they have cost."""
    key = request.url.query

    async def generate() -> AsyncIterator[str]:
        record("running", key=key)
        try:
            for _ in range(5):
                yield "data: token\n\n"
                await anyio.sleep(0.1)
            record("usage", key=key)
            yield "data: usage\n\n"
            await anyio.sleep(60)
        finally:
            record("closed", key=key)

    return await cancelable_streaming_response(
        generate(), operation(request), drain=Drain(10, until=lambda item: "usage" in item)
    )


async def flood(request: Request) -> Response:
    """Send more than any buffer holds."""
    key = request.url.query

    async def generate() -> AsyncIterator[bytes]:
        record("running", key=key)
        try:
            while True:
                yield bytes(2**18)
        finally:
            record("closed", key=key)

    return await cancelable_streaming_response(generate(), operation(request), send_timeout=0.5)


async def count(request: Request) -> Response:
    """Count, for a client who may come back."""
    key = request.url.query

    async def produce(_: str | None) -> AsyncIterator[str]:
        for number in range(10):
            yield str(number)
            await anyio.sleep(0.05)
        record("counted", key=key)

    return feeds.respond(request, produce)


async def idle(request: Request) -> Response:
    """Send one piece, and wait for ever: as Starlette does it, or one of ours."""

    async def generate() -> AsyncIterator[str]:
        yield "x\n\n"
        await anyio.sleep_forever()

    kind = request.path_params["kind"]
    if kind == "plain":
        return StreamingResponse(generate())
    if kind == "stream":
        return await cancelable_streaming_response(generate(), operation(request))
    return cancelable_sse_response(generate(), operation(request), heartbeat=3600)


async def leftovers(_: Request) -> Response:
    """Count what is in the process besides this request."""
    return JSONResponse({"tasks": count_tasks(), **process()})


def process() -> dict[str, Any]:
    """Look at the process from outside of the event loop."""
    gc.collect()
    names = Counter(type(thing).__name__ for thing in gc.get_objects())
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "files": len(list(Path("/proc/self/fd").iterdir())),
        "objects": {name: names[name] for name in OURS},
        "twice": [key for key, times in closed.items() if times != 1],
        "resident": pages * os.sysconf("SC_PAGESIZE"),
    }


routes = [
    Route("/stream", stream),
    Route("/crowd", crowd),
    Route("/floor", floor),
    Route("/sse", sse),
    Route("/deadline/{ending}", deadline),
    Route("/chunks", chunks),
    Route("/quiet", quiet),
    Route("/write", write),
    Route("/model", model),
    Route("/flood", flood),
    Route("/count", count),
    Route("/idle/{kind}", idle),
    Route("/leftovers", leftovers),
]
app = Starlette(routes=routes, lifespan=lifespan)
app.add_middleware(RequestCancelationMiddleware)
app.add_middleware(Told)
plain_app = Starlette(routes=routes, lifespan=lifespan)  #: without the middleware
