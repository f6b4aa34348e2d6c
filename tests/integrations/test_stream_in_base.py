"""A ``BaseHTTPMiddleware`` around a stream of ours: which of its last words arrive."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hother.cancelable import Cancelable
from hother.cancelable.asgi import ASGIApp
from hother.cancelable.asgi._types import Receive, Scope, Send
from hother.cancelable.integrations.starlette import (
    RequestCancelationMiddleware,
    cancelable_sse_response,
    get_request_token,
)
from tests.asgi_peer import Peer


class Passing(BaseHTTPMiddleware):
    """One that does nothing."""

    async def dispatch(self, request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        return response


OURS = Middleware(RequestCancelationMiddleware, default_timeout=2.2)
THEIRS = Middleware(Passing)


async def serve(*stack: Middleware, timeout: float | None = None, act: str = "") -> tuple[Peer, float]:
    """Serve a stream that has no end. Returns how long that took, too."""
    middleware: RequestCancelationMiddleware | None = None

    async def events() -> AsyncIterator[str]:
        while True:
            yield "tick"
            await anyio.sleep(0.5)

    async def endpoint(request: Request) -> Response:
        tokens.append(get_request_token(request))
        return cancelable_sse_response(events(), Cancelable(tokens=tokens, timeout=timeout))

    tokens: list[Any] = []
    app: ASGIApp = Starlette(routes=[Route("/", endpoint)], middleware=list(stack))
    if act == "shutdown":
        app = middleware = RequestCancelationMiddleware(app)
    peer = Peer()
    start = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(peer.run, app)
        await anyio.sleep(1.2)
        if act == "operator":
            tokens[0].cancel()
        elif middleware is not None:
            middleware.begin_shutdown()
    return peer, anyio.current_time() - start


# An older Starlette leaves a generator of its own to Trio's collector.
@pytest.mark.filterwarnings("ignore:.*Request.stream:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:.*Request.stream:ResourceWarning")
@pytest.mark.parametrize(("act", "ends_at"), [("", 2.2), ("operator", 1.2)], ids=["deadline", "operator"])
async def test_outside_of_ours_it_lets_the_last_event_through(act: str, ends_at: float) -> None:
    """
    It goes on while ours ends.
    """
    peer, took = await serve(THEIRS, OURS, act=act)

    assert b"event: cancelled" in peer.body
    assert took == pytest.approx(ends_at)


@pytest.mark.parametrize(("act", "ends_at"), [("", 2.2), ("operator", 1.2)], ids=["deadline", "operator"])
async def test_inside_of_ours_it_is_stopped_too_and_nothing_is_waited_for(act: str, ends_at: float) -> None:
    """
    The last event would not arrive; the stream ends when it should all the same.
    """
    peer, took = await serve(OURS, THEIRS, act=act)

    assert b"event: cancelled" not in peer.body
    assert not peer.complete
    assert took == pytest.approx(ends_at)


@pytest.mark.parametrize(
    ("stack", "options"),
    [((OURS, THEIRS), {"timeout": 1.7}), ((THEIRS,), {"act": "shutdown"})],
    ids=["time limit of the operation", "shutdown, which leaves time"],
)
async def test_what_does_not_stop_it_gets_the_last_event_through(
    stack: tuple[Middleware, ...], options: dict[str, Any]
) -> None:
    """
    Although it is inside of ours.
    """
    peer, _ = await serve(*stack, **options)

    assert b"event: cancelled" in peer.body


async def test_it_is_the_nature_of_base_http_middleware() -> None:
    """
    Without anything of ours: what is sent in a cancelled scope around it does not arrive.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.move_on_after(1, shield=True):
                await send({"type": "http.response.body", "body": b"last", "more_body": True})

    async def around(scope: Scope, receive: Receive, send: Send) -> None:
        with anyio.move_on_after(2):
            await Passing(app)(scope, receive, send)

    peer = Peer()
    start = anyio.current_time()
    await peer.run(around)

    assert peer.body == b"first"
    assert anyio.current_time() - start == pytest.approx(3)
