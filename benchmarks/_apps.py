"""The applications that are measured, bare and in each of the wrappings that are compared."""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Any

import anyio
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hother.cancelable import Cancelable
from hother.cancelable.integrations.fastapi import RequestCancelationMiddleware, cancelable_dependency

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]

WAIT = 0.02
"""How long the handlers wait that do, in seconds."""


# --- Applications: `/` answers at once, `/wait` after a while, `/hang` never


async def raw(scope: Scope, receive: Any, send: Any) -> None:
    """The smallest ASGI application."""
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": message["type"] + ".complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] != "/":
        await anyio.sleep(WAIT if scope["path"] == "/wait" else 86_400)
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"13")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"Hello, world!"})


def starlette() -> App:
    """Starlette with JSON endpoints."""

    async def at_once(request: Request) -> Response:
        return JSONResponse({"hello": "world"})

    async def wait(request: Request) -> Response:
        await anyio.sleep(WAIT)
        return JSONResponse({"hello": "world"})

    return Starlette(routes=[Route("/", at_once), Route("/wait", wait)])


def fastapi() -> App:
    """FastAPI with JSON endpoints, one of which uses the dependency."""
    app = FastAPI()

    @app.get("/")
    async def at_once() -> dict[str, str]:
        return {"hello": "world"}

    @app.get("/wait")
    async def wait() -> dict[str, str]:
        await anyio.sleep(WAIT)
        return {"hello": "world"}

    @app.get("/block")
    async def block(cancel: Cancelable = Depends(cancelable_dependency)) -> dict[str, str]:
        async with cancel:
            return {"hello": "world"}

    @app.get("/depends")
    async def depends(value: int = Depends(_some_dependency)) -> dict[str, str]:
        return {"hello": "world"}

    return app


async def _some_dependency(request: Request) -> int:
    return 1


# --- Wrappings


class PassThrough:
    """A middleware that does nothing."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


class Token:
    """What must be in the scope, at the very least."""

    __slots__ = ("__weakref__", "callbacks", "cause")

    def __init__(self) -> None:
        self.callbacks: dict[object, Any] = {}
        self.cause: Any = None


_current: ContextVar[Any] = ContextVar("current", default=None)


class Floor:
    """What the contract demands of each request, and nothing of what makes it come true.

    A token in the scope and in a context variable; and a ``send`` and a ``receive`` of our own, since
    nobody can tell afterwards how far a response has got, or what was read.
    """

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        token = scope["cancelation_token"] = Token()
        outer = _current.get()
        _current.set(weakref.ref(token))
        try:
            await self.app(scope, _Receive(receive).receive, _Send(send).send)
        finally:
            _current.set(outer)


class _Receive:
    __slots__ = ("_receive",)

    def __init__(self, receive: Any) -> None:
        self._receive = receive

    async def receive(self) -> Any:
        return await self._receive()


class _Send:
    __slots__ = ("_is_complete", "_send")

    def __init__(self, send: Any) -> None:
        self._send = send
        self._is_complete = False

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            self._is_complete = not message.get("more_body")
        await self._send(message)


async def _dispatch(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    return response


def _peer(module: str, name: str) -> Callable[[App], App] | None:
    if find_spec(module) is None:
        return None
    wrapping: Callable[[App], App] = getattr(__import__(module, fromlist=[name]), name)
    return wrapping


WRAPPINGS: dict[str, Callable[[App], App]] = {
    "bare": lambda app: app,
    "pass-through": PassThrough,
    "floor": Floor,
    "ours": RequestCancelationMiddleware,
    "ours, 30 s limit": lambda app: RequestCancelationMiddleware(app, 30.0),
    "BaseHTTPMiddleware": lambda app: BaseHTTPMiddleware(app, _dispatch),
}
for peer, module, name in (
    ("aiofence", "aiofence.contrib.starlette", "DisconnectMiddleware"),
    ("fastapi-disconnect", "fastapi_disconnect", "CancelOnDisconnectMiddleware"),
):
    try:
        if wrapping := _peer(module, name):
            WRAPPINGS[peer] = wrapping
    except (ImportError, AttributeError):
        pass

APPLICATIONS: dict[str, Callable[[], App]] = {"raw": lambda: raw, "starlette": starlette, "fastapi": fastapi}


def build(application: str, wrapping: str) -> App:
    """Make one of the applications in one of the wrappings."""
    return WRAPPINGS[wrapping](APPLICATIONS[application]())


def __getattr__(path: str) -> App:
    """Let servers load ``benchmarks._apps:fastapi|ours``."""
    application, separator, wrapping = path.partition("|")
    if not separator:
        raise AttributeError(path)
    return build(application, wrapping)
