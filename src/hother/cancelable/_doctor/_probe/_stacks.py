"""The middleware, in every place where people put it.

Paths are ``/STACK/TIMEOUT/HANDLER``. A timeout of 0 is none.
"""

from __future__ import annotations

from typing import Any, final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount

from ...integrations.fastapi import Grace, RequestCancelationMiddleware
from ._handlers import create_app
from ._witness import App, Receive, Scope, Send

GRACE = 0.3
"""How long handlers may go on when the server stops, in seconds."""


class Stamp(BaseHTTPMiddleware):
    """What most applications have a few of."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Mark a response."""
        response = await call_next(request)
        response.headers["x-stamp"] = "stamped"
        return response


def outermost(timeout: float | None) -> App:
    """Wrap the whole application."""
    return RequestCancelationMiddleware(create_app(), timeout, on_shutdown=Grace(GRACE))


def added(timeout: float | None) -> App:
    """Add it as the framework has it."""
    app = create_app()
    app.add_middleware(RequestCancelationMiddleware, default_timeout=timeout)
    return app


def around_base(timeout: float | None) -> App:
    """Around a BaseHTTPMiddleware."""
    app = create_app()
    app.add_middleware(Stamp)
    app.add_middleware(RequestCancelationMiddleware, default_timeout=timeout)
    return app


def in_base(timeout: float | None) -> App:
    """In a BaseHTTPMiddleware."""
    app = create_app()
    app.add_middleware(RequestCancelationMiddleware, default_timeout=timeout)
    app.add_middleware(Stamp)
    return app


def mounted(timeout: float | None) -> App:
    """In a sub-application only."""
    middleware = [Middleware(RequestCancelationMiddleware, default_timeout=timeout)]
    return Starlette(routes=[Mount("/", create_app(), middleware=middleware)])


def twice(timeout: float | None) -> App:
    """Around the application, and in it."""
    app = create_app()
    app.add_middleware(RequestCancelationMiddleware, default_timeout=timeout)
    return RequestCancelationMiddleware(app)


STACKS = {
    stack.__name__.replace("_", "-"): stack
    for stack in (outermost, added, around_base, in_base, mounted, twice)
}


@final
class Stacks:
    """Calls the stack that the path names; the lifespan belongs to the outermost one, or to *lifespan*."""

    def __init__(self, bare: App, *, lifespan: App | None = None) -> None:
        self._apps: dict[tuple[str, str], App] = {}
        self._bare = bare
        self._first = outermost(None)
        self._lifespan = lifespan or self._first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        _, stack, timeout, handler = scope["path"].split("/", 3)
        inner = {**scope, "path": f"/{handler}", "raw_path": f"/{handler}".encode()}
        await self._app(stack, timeout)(inner, receive, send)

    def _app(self, stack: str, timeout: str) -> Any:
        if stack == "bare":
            return self._bare
        if (stack, timeout) == ("outermost", "0"):
            return self._first
        key = stack, timeout
        if key not in self._apps:
            self._apps[key] = STACKS[stack](float(timeout) or None)
        return self._apps[key]
