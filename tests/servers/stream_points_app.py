"""Streams with one property each, and the examples, for tests of what a client sees.

The query string of a request is the key of what is recorded about it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from examples import progress_feed, token_stream
from hother.cancelable import Cancelable
from hother.cancelable.integrations.starlette import (
    Drain,
    RequestCancelationMiddleware,
    ResumableEvents,
    ServerSentEvent,
    cancelable_sse_response,
    cancelable_streaming_response,
    get_last_event_id,
    get_request_token,
)
from tests.servers.recording import record

feeds = ResumableEvents(window=0.5, buffer=4)
operations: dict[str, Cancelable] = {}


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Give the feeds and the example's model a home."""
    async with feeds, progress_feed.feeds, token_stream.upstream:
        yield


def operation(request: Request, timeout: float | None = None) -> Cancelable:
    """Make the operation of a stream, for `stop` to find."""
    made = Cancelable(timeout=timeout, tokens=[get_request_token(request)])
    operations[request.url.query] = made
    return made


async def stop(request: Request) -> Response:
    """Cancel another request's operation."""
    operations.pop(request.url.query).cancel(message="stopped by an operator")
    return Response()


class Recorded:
    """Generators that record how they end."""

    def __init__(self, key: str) -> None:
        self.key = key

    async def ticks(self) -> AsyncGenerator[str, None]:
        """Wait between items; clean up for a while."""
        record("running", key=self.key)
        try:
            while True:
                yield "data: x\n\n"
                await anyio.sleep(0.05)
        except BaseException as error:
            record("told", key=self.key, error=type(error).__name__)
            raise
        finally:
            await anyio.sleep(0.1)
            record("closed", key=self.key)

    async def rush(self) -> AsyncGenerator[str, None]:
        """Never wait."""
        record("running", key=self.key)
        try:
            while True:
                yield "x"
        finally:
            record("closed", key=self.key)

    def steps(self) -> Iterator[str]:
        """Tick, in threads."""
        record("running", key=self.key)
        try:
            while True:
                yield "x"
                time.sleep(0.05)
        finally:
            record("closed", key=self.key)

    async def swallow(self) -> AsyncGenerator[str, None]:
        """Take an interruption for the end."""
        record("running", key=self.key)
        try:
            yield "data: x\n\n"
            await anyio.sleep(60)
        except BaseException:
            record("closed", key=self.key)

    async def letters(self) -> AsyncGenerator[str, None]:
        """Send characters of several bytes."""
        for letter in "日本語 and äöü 🙂":
            yield letter


async def plain(request: Request) -> Response:
    """Send what one of the generators yields."""
    generator: Any = getattr(Recorded(request.url.query), request.path_params["name"])()
    return await cancelable_streaming_response(generator, operation(request), **OPTIONS[request.url.path])


OPTIONS: dict[str, dict[str, Any]] = {
    "/plain/ticks": {},
    "/plain/rush": {},
    "/plain/steps": {},
    "/plain/swallow": {"media_type": "text/event-stream"},
    "/plain/letters": {"chunk_size": 2},
}


async def late(request: Request) -> Response:
    """Let the time run out before the stream begins."""
    cancel = operation(request, 0.1)
    async with cancel:
        await anyio.sleep(1)
    return await cancelable_streaming_response(
        Recorded(request.url.query).ticks(), cancel
    )  # pragma: no cover


async def both(request: Request) -> Response:
    """Read on for a moment, and finish the record in hand."""
    key = request.url.query

    async def generate() -> AsyncIterator[str]:
        for number in range(100):
            record("begun", key=key, number=number)
            await anyio.sleep(0.4)
            record("written", key=key, number=number)
            yield "x"

    return await cancelable_streaming_response(
        generate(), operation(request), drain=Drain(0.1), shield="item"
    )


async def framing(request: Request) -> Response:
    """Send events with everything in them, and the last id of the client."""

    async def generate() -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent(get_last_event_id(request) or "none", event="last-id")
        yield ServerSentEvent("one\ntwo\r\nthree\rfour", id="7é", retry=2500, comment="hello")
        yield ServerSentEvent.json({"a": ["ü", 1]})

    return cancelable_sse_response(generate(), operation(request))


async def farewell(request: Request) -> Response:
    """Send events until the server stops."""
    record("running", key=request.url.query)
    return cancelable_sse_response(Recorded(request.url.query).ticks(), operation(request), retry_spread=3)


async def stall(request: Request) -> Response:
    """Send more than any buffer holds, as events, with heartbeats that come before the time limit."""
    key, cancel = request.url.query, operation(request)

    async def generate() -> AsyncIterator[str]:
        record("running", key=key)
        try:
            while True:
                yield "x" * 2**17
        finally:
            record("closed", key=key, cause=str(cancel.cancelation))

    return cancelable_sse_response(generate(), cancel, heartbeat=0.1, send_timeout=0.5)


async def window(request: Request) -> Response:
    """Count for ever, for a client who may come back within half a second."""
    key = request.url.query

    async def produce(_: str | None) -> AsyncIterator[str]:
        record("running", key=key)
        try:
            for number in range(1_000_000):
                yield str(number)
                await anyio.sleep(0.02)
        finally:
            record("closed", key=key)

    return feeds.respond(request, produce)


async def computed(_: Request) -> Response:
    """Tell what the example's model and its report have done."""
    return JSONResponse(
        {
            "computed": token_stream.computed,
            "aborted": token_stream.aborted,
            "built": progress_feed.built,
        }
    )


app = Starlette(
    routes=[
        Route("/stop", stop),
        Route("/plain/{name}", plain),
        Route("/late", late),
        Route("/both", both),
        Route("/framing", framing),
        Route("/farewell", farewell),
        Route("/stall", stall),
        Route("/window", window),
        Route("/computed", computed),
        Mount("/tokens", token_stream.app),
        Mount("/report", progress_feed.app),
    ],
    lifespan=lifespan,
)
app.add_middleware(RequestCancelationMiddleware)
