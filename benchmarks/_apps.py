"""The applications that are measured.

None of them imports a library that is compared, unless it is used there: 0.11 has the name of ours.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from typing import Any, TypeAlias
from weakref import ref

import anyio
from anyio import CancelScope
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Scope: TypeAlias = MutableMapping[str, Any]
App: TypeAlias = Callable[[Scope, Any, Any], Awaitable[None]]

WAIT = 0.02
"""How long the handlers wait that do, in seconds."""


# `/` answers at once, `/wait` after a while, `/hang` never.


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
    """FastAPI with JSON endpoints, one of which has a dependency of no use."""
    app = FastAPI()

    @app.get("/")
    async def at_once() -> dict[str, str]:
        return {"hello": "world"}

    @app.get("/wait")
    async def wait() -> dict[str, str]:
        await anyio.sleep(WAIT)
        return {"hello": "world"}

    @app.get("/depends")
    async def depends(value: int = Depends(_some_dependency)) -> dict[str, str]:
        return {"hello": "world"}

    return app


async def _some_dependency(request: Request) -> int:
    return 1


class ByHand:
    """The least that fulfils the contract: a scope that the token stops, and that code inside finds."""

    def __init__(self, token: Any) -> None:
        self.token = token

    async def __aenter__(self) -> None:
        self.scope = CancelScope()
        self.scope.__enter__()
        self.around = _around.get()
        _around.set((ref(self), *self.around))
        self.token.callbacks[self] = self.cancel

    async def __aexit__(self, *exc: Any) -> bool:
        del self.token.callbacks[self]
        _around.set(self.around)
        return self.scope.__exit__(*exc)

    def cancel(self, _: object) -> None:
        self.scope.cancel()


_around: ContextVar[tuple[ref[ByHand], ...]] = ContextVar("around_by_hand", default=())


async def _by_hand(request: HTTPConnection) -> Any:
    return ByHand(request.scope["cancelation_token"])


def block_by_hand() -> App:
    """FastAPI with an endpoint that does by hand what an operation must do, with the token of `Floor`."""
    return _with_block(_by_hand)


def block() -> App:
    """FastAPI with an endpoint that is an operation; our names are those of 0.11."""
    from hother.cancelable.integrations.fastapi import cancelable_dependency

    return _with_block(cancelable_dependency)


def _with_block(dependency: Callable[..., Any]) -> App:
    app = FastAPI()

    @app.get("/block")
    async def handler(cancel: Any = Depends(dependency)) -> dict[str, str]:
        async with cancel:
            return {"hello": "world"}

    return app
