"""Policies, shutdown and clean-up in Starlette and FastAPI."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import create_task_group
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Request
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from hother.cancelable.asgi import ASGIApp
from hother.cancelable.asgi._types import Message
from hother.cancelable.integrations.fastapi import (
    CleanupTask,
    RequestCancelationMiddleware,
    RequestPolicy,
    apply_policy,
    commit,
    get_shutdown_token,
    policy_dependency,
    with_cancelation,
)
from tests.asgi_peer import ALL_HABITS, Habits, Peer


async def serve(app: ASGIApp, path: str = "/", *, leaves_after: float = inf, **options: Any) -> Peer:
    peer = Peer(path=path, **options)
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, app)
        with anyio.move_on_after(leaves_after):
            await peer.until(lambda: peer.returned)
        if not peer.returned:
            peer.disconnect()
    return peer


async def seconds(app: ASGIApp, path: str, **options: Any) -> tuple[int | None, float]:
    """The status of a request, and how long it took."""
    start = anyio.current_time()
    peer = await serve(app, path, **options)
    return peer.status, anyio.current_time() - start


# --- Where policies are stated


@RequestPolicy(timeout=5)
async def marked(request: Request) -> Response:
    """Wait, in Starlette."""
    await anyio.sleep(10)
    return PlainTextResponse("done")


async def unmarked(request: Request) -> Response:
    """Wait, too."""
    await anyio.sleep(10)
    return PlainTextResponse("done")


class View(HTTPEndpoint):
    """An endpoint that is a class."""

    @RequestPolicy(timeout=None)
    async def get(self, request: Request) -> Response:
        await anyio.sleep(10)
        return PlainTextResponse("done")

    async def post(self, request: Request) -> Response:
        await anyio.sleep(10)
        return PlainTextResponse("done")


async def test_starlette_routes() -> None:
    """
    Functions, classes and their methods, and those of a mounted application with a middleware of its own.
    """
    inner = Starlette(
        routes=[Route("/marked", marked), Route("/unmarked", unmarked)],
        middleware=[Middleware(RequestCancelationMiddleware, default_timeout=3)],
    )
    app = Starlette(
        routes=[
            Route("/marked", marked),
            Route("/unmarked", unmarked),
            Route("/view", View),
            Mount("/inner", inner),
        ]
    )
    app.add_middleware(RequestCancelationMiddleware, default_timeout=2)

    assert await seconds(app, "/marked") == (504, 5)
    assert await seconds(app, "/unmarked") == (504, 2)
    assert await seconds(app, "/view") == (200, 10)
    assert await seconds(app, "/view", method="POST") == (504, 2)
    assert await seconds(app, "/inner/marked") == (504, 5)
    assert await seconds(app, "/inner/unmarked") == (504, 3)


def make_fastapi(router: APIRouter) -> FastAPI:
    app = FastAPI()
    app.include_router(router, prefix="/v1")
    app.add_middleware(RequestCancelationMiddleware, default_timeout=2)
    return app


async def test_fastapi_routes_and_routers() -> None:
    """
    A router's dependency holds for its routes; what an endpoint is marked with wins.
    """
    router = APIRouter(
        dependencies=[Depends(policy_dependency(RequestPolicy(timeout=4, on_disconnect="finish")))]
    )
    ended: list[str] = []

    @router.get("/router")
    async def of_router() -> None:
        await anyio.sleep(10)

    @router.get("/route")
    @RequestPolicy(timeout=1)
    async def of_route(number: int) -> None:
        await anyio.sleep(0.8)
        ended.append(f"route {number}")
        await anyio.sleep(10)

    @router.get("/both", dependencies=[Depends(policy_dependency(RequestPolicy(timeout=3)))])
    async def both() -> None:
        await anyio.sleep(2.5)
        ended.append("both")
        await anyio.sleep(10)

    @router.get("/decorated")
    @RequestPolicy(timeout=None)
    @with_cancelation(timeout=6)
    async def decorated() -> None:
        await anyio.sleep(10)

    app = make_fastapi(router)

    assert await seconds(app, "/v1/router") == (504, 4)
    assert await seconds(app, "/v1/route", query="number=1") == (504, 1)
    assert await seconds(app, "/v1/route", query="number=2", leaves_after=0.5) == (None, 1)
    assert await seconds(app, "/v1/both", leaves_after=0.5) == (None, 3)
    assert await seconds(app, "/v1/decorated") == (504, 6)
    assert ended == ["route 1", "route 2", "both"]
    assert app.openapi()["paths"]["/v1/route"]["get"]["parameters"][0]["name"] == "number"


async def test_policies_without_the_middleware_do_nothing() -> None:
    """
    They are statements to somebody who is not there.
    """
    app = FastAPI()

    @app.get("/", dependencies=[Depends(policy_dependency(RequestPolicy(timeout=1)))])
    async def endpoint(request: Request) -> bool:
        apply_policy(RequestPolicy(timeout=1))
        commit(timeout=1)
        await anyio.sleep(2)
        token = get_shutdown_token(request)
        return token is get_shutdown_token(request) and not token.is_cancelled

    assert (await serve(app)).body == b"true"


def test_wrong_arguments() -> None:
    """
    They are refused where they are given.
    """
    with pytest.raises(TypeError, match="RequestPolicy"):
        policy_dependency(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Request"):
        get_shutdown_token("request")  # type: ignore[arg-type]


# --- Shutdown


async def test_a_stream_says_goodbye_when_the_server_begins_to_stop() -> None:
    """
    The token is one for all requests, and known without a lifespan, too.
    """

    async def endpoint(request: Request) -> Response:
        async def generate() -> AsyncIterator[str]:
            yield "hello "
            await get_shutdown_token(request).wait()
            yield "goodbye"

        return StreamingResponse(generate())

    app = Starlette(routes=[Route("/", endpoint)])
    server = RequestCancelationMiddleware(app)
    peer = Peer()
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, server)
        await anyio.sleep(1)
        server.begin_shutdown()

    assert (peer.body, anyio.current_time()) == (b"hello goodbye", 1)


async def test_the_lifespan_of_starlette_is_passed_through() -> None:
    """
    With its state.
    """
    steps: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, int]]:
        steps.append("up")
        yield {"answer": 42}
        steps.append("down")

    app = Starlette(lifespan=lifespan)
    app.add_middleware(RequestCancelationMiddleware)
    messages = ["lifespan.shutdown", "lifespan.startup"]
    sent: list[str] = []
    scope: dict[str, Any] = {"type": "lifespan", "state": {}}

    async def receive() -> dict[str, Any]:
        return {"type": messages.pop()}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await app(scope, receive, send)

    assert steps == ["up", "down"]
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert scope["state"] == {"answer": 42}


# --- Clean-up


@pytest.mark.real_time
@pytest.mark.parametrize("task", [BackgroundTask, CleanupTask])
@pytest.mark.parametrize("habits", ALL_HABITS, ids=str)
async def test_a_temporary_file_is_deleted_although_its_client_left(
    task: Any, habits: Habits, tmp_path: Path
) -> None:
    """
    Starlette's own background task stays with the response that was cut.
    """
    path = tmp_path / "report"
    path.write_bytes(bytes(1_000_000))
    is_sending = anyio.Event()

    class Telling(Peer):
        async def send(self, message: Message) -> None:
            is_sending.set()
            await super().send(message)

    async def endpoint(request: Request) -> Response:
        return FileResponse(path, background=task(path.unlink))

    app = Starlette(routes=[Route("/", endpoint)])
    app.add_middleware(RequestCancelationMiddleware)
    peer = Telling(habits=habits, strict=False)
    peer.stall()
    async with create_task_group() as tasks:
        tasks.start_soon(peer.run, app)
        await is_sending.wait()
        peer.disconnect()

    assert path.exists() is (task is BackgroundTask)


async def test_a_cleanup_task_runs_once() -> None:
    """
    With the others if the response is complete, and after it otherwise; without the middleware, too.
    """
    steps: list[str] = []
    router = APIRouter()

    @router.get("/v1/{delay}")
    async def endpoint(delay: int, tasks: BackgroundTasks) -> None:
        async def clean_up(name: str) -> None:
            await anyio.sleep(0.5)
            steps.append(f"{name} {anyio.current_time()}")

        tasks.add_task(CleanupTask(clean_up, "cleaned up"))
        tasks.add_task(clean_up, name="background")
        await anyio.sleep(delay)

    without = FastAPI()
    without.include_router(router)
    await serve(without, "/v1/1")
    app = FastAPI()
    app.include_router(router)
    app.add_middleware(RequestCancelationMiddleware, default_timeout=2)
    await serve(app, "/v1/1")
    await serve(app, "/v1/9")

    assert steps == [
        "cleaned up 1.5",
        "background 2.0",
        "cleaned up 3.5",
        "background 4.0",
        "cleaned up 6.5",
    ]


# --- The access log


async def test_what_endpoints_answer_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """
    With the status that they have chosen, and the whole template of the route.
    """
    router = APIRouter()

    @router.get("/decorated/{name}")
    @with_cancelation(timeout=1)
    async def decorated(request: Request, name: str) -> None:
        await anyio.sleep(10)

    @router.get("/raw/{name}")
    @with_cancelation(timeout=1, raise_on_cancel=False)
    async def raw(name: str) -> None:
        await anyio.sleep(10)

    @router.get("/quick")
    async def quick() -> None:
        pass

    app = make_fastapi(router)
    with caplog.at_level(logging.INFO, "hother.cancelable.access"):
        for path in ("/v1/decorated/a", "/v1/raw/b", "/v1/quick"):
            await serve(app, path)

    lines: list[Any] = caplog.records
    assert [(line.route, line.status, line.result, line.reason) for line in lines] == [
        ("/v1/decorated/{name}", 504, "completed", "timeout"),
        ("/v1/raw/{name}", 504, "answered", "timeout"),
    ]
