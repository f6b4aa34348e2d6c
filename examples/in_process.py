"""A client for an application in the same process, which can leave in the middle of a response."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import anyio
from anyio.abc import TaskGroup


class InProcess:
    """Calls an ASGI application. The requests run in tasks, in the ``async with`` block of this."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._tasks: TaskGroup

    async def __aenter__(self) -> InProcess:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *exc_info: Any) -> bool | None:
        return await self._tasks.__aexit__(*exc_info)

    async def get(self, path: str, query: str = "", **headers: str) -> AsyncGenerator[bytes, None]:
        """Read a response, part by part. To close this is to leave."""
        request = _Request()
        scope = {
            "type": "http",
            "method": "GET",
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        }
        self._tasks.start_soon(request.run, self._app, scope)
        try:
            async with request.parts:
                async for part in request.parts:
                    yield part
        finally:
            request.left.set()


class _Request:
    def __init__(self) -> None:
        self.left = anyio.Event()
        self._to_client, self.parts = anyio.create_memory_object_stream[bytes](1)
        self._is_read = False

    async def run(self, app: Any, scope: dict[str, Any]) -> None:
        async with self._to_client:
            await app(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        if self._is_read:
            await self.left.wait()
            return {"type": "http.disconnect"}
        self._is_read = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _send(self, message: dict[str, Any]) -> None:
        if message.get("body") and not self.left.is_set():
            await self._to_client.send(message["body"])
