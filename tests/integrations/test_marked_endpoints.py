"""Endpoints of all shapes: their marks are found, in whatever application they are mounted."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Mount, Route

from hother.cancelable.integrations.fastapi import RequestCancelationMiddleware, RequestPolicy
from tests.asgi_peer import ASGIApp, Peer, Receive, Scope, Send


async def seconds(app: ASGIApp, path: str = "/", **options: Any) -> tuple[int | None, float]:
    """The status of a request, and how long it took."""
    start = anyio.current_time()
    peer = Peer(path=path, **options)
    await peer.run(app)
    return peer.status, anyio.current_time() - start


async def wait(request: Request) -> Response:
    """Wait for longer than anybody allows."""
    await anyio.sleep(30)
    return PlainTextResponse("done")


class Called:
    """An endpoint that is an object."""

    @RequestPolicy(timeout=2)
    async def __call__(self, request: Request) -> Response:
        return await wait(request)


class View(HTTPEndpoint):
    """An endpoint that is a class, and answers ``HEAD`` as it answers ``GET``."""

    @RequestPolicy(timeout=2)
    async def get(self, request: Request) -> Response:
        return await wait(request)


class Heading(View):
    """An endpoint with a method for each."""

    @RequestPolicy(timeout=3)
    async def head(self, request: Request) -> Response:
        return await wait(request)


async def marked(request: Request) -> Response:
    """Be marked from the inside, and from the outside."""
    return await wait(request)


RequestPolicy(timeout=2)(marked)


@pytest.mark.parametrize(
    ("endpoint", "method", "limit"),
    [
        (RequestPolicy(timeout=2)(partial(wait)), "GET", 2),
        (RequestPolicy(timeout=2)(partial(partial(wait))), "GET", 2),
        (RequestPolicy(timeout=9)(partial(marked)), "GET", 2),
        (RequestPolicy(timeout=9)(View), "GET", 2),
        (View, "HEAD", 2),
        (Heading, "HEAD", 3),
    ],
)
async def test_starlette_endpoints(endpoint: Callable[..., Any], method: str, limit: float) -> None:
    """
    A partial has a mark of its own, and a class the mark of the method that is called.
    """
    app = Starlette(routes=[Route("/", endpoint)])
    app.add_middleware(RequestCancelationMiddleware)

    assert await seconds(app, method=method) == (504, limit)


async def test_an_object_that_is_called() -> None:
    """
    FastAPI takes them for endpoints.
    """
    app = FastAPI()
    app.add_api_route("/", Called())
    app.add_middleware(RequestCancelationMiddleware)

    assert await seconds(app) == (504, 2)


class Slow:
    """A middleware that takes its time before the router is asked."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait, and pass on."""
        await anyio.sleep(1.5)
        await self.app(scope, receive, send)


def mounted(how: str) -> Starlette:
    """An application in which the endpoint is found late, by an inner router."""
    routes = [Route("/marked", marked)]
    inner = Starlette(routes=routes, middleware=[Middleware(Slow)])
    if how == "application":
        return Starlette(routes=[Mount("/inner", inner)])
    if how == "host":
        return Starlette(routes=[Host("localhost", Mount("/inner", inner)), Mount("/inner", inner)])
    return Starlette(routes=[Mount("/inner", routes=routes, middleware=[Middleware(Slow)])])


@pytest.mark.parametrize("how", ["application", "host", "routes"])
@pytest.mark.parametrize("default", [None, 20])
async def test_a_mounted_application_is_not_taken_for_the_endpoint(default: float | None, how: str) -> None:
    """
    Although it stands in the same place of the scope, while its middleware has not got to its router.
    """
    app = mounted(how)
    app.add_middleware(RequestCancelationMiddleware, default_timeout=default)

    assert await seconds(app, "/inner/marked") == (504, 2)
