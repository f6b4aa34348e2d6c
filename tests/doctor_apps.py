"""Applications for the doctor to look at."""

from __future__ import annotations

from typing import Any

import anyio
from fastapi import FastAPI, Request
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.responses import Response

from hother.cancelable.integrations.fastapi import RequestCancelationMiddleware


class Auth(BaseHTTPMiddleware):
    """Lets in who brings a header."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Ask for it."""
        if request.headers.get("authorization") != "please":
            return Response("who are you?", 401)
        return await call_next(request)


def create_app() -> FastAPI:
    """Make an application with a slow path, and a fast one."""
    app = FastAPI()

    @app.get("/slow")
    async def slow() -> str:
        await anyio.sleep(20)
        return "done"

    @app.get("/fast")
    async def fast() -> str:
        return "done"

    return app


good = create_app()
good.add_middleware(RequestCancelationMiddleware, default_timeout=0.6)

naked = create_app()

patient = create_app()
patient.add_middleware(RequestCancelationMiddleware, default_timeout=0.6, on_disconnect="finish")


def factory() -> FastAPI:
    """No application, but what makes one."""
    return create_app()


guarded = create_app()
guarded.add_middleware(RequestCancelationMiddleware)
guarded.add_middleware(Auth)


async def pure(scope: Any, receive: Any, send: Any) -> None:
    """An application of no framework."""
    await good(scope, receive, send)
