"""A report that takes a while, and a page that shows how far it is, also after its connection broke.

``python -m examples.progress_feed`` plays a client that loses its connection, and comes back. With
``uvicorn examples.progress_feed:app``, look at http://127.0.0.1:8000/progress, or take a browser::

    const source = new EventSource("/progress")
    source.onmessage = event => bar.value = event.data
    source.addEventListener("cancelled", event => explain(JSON.parse(event.data)))

The browser comes back by itself, and says what it has. If it stays away for ten seconds, the report is not
built to its end: nobody waits for it any more.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import anyio
from fastapi import FastAPI, Request
from starlette.responses import Response

from examples.in_process import InProcess
from hother.cancelable.integrations.fastapi import RequestCancelationMiddleware, ResumableEvents

feeds = ResumableEvents(window=10)
built: list[int] = []


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Give the reports a home: they outlive their requests."""
    async with feeds:
        yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(RequestCancelationMiddleware)


@app.get("/progress")
async def progress(request: Request) -> Response:
    """Build a report, or go on telling of one."""
    return feeds.respond(request, build_report, timeout=60)


async def build_report(_: str | None) -> AsyncGenerator[str, None]:
    """Build ten parts of a report, and tell of each."""
    for part in range(1, 11):
        await anyio.sleep(0.3)
        built.append(part)
        yield str(part * 10)


async def watch(name: str, seconds: float, last_event_id: str = "") -> str:
    """Show the progress, for so many seconds at most, and return the id of the last event."""
    with anyio.move_on_after(seconds):
        async with aclosing(site.get("/progress", last_event_id=last_event_id)) as parts:
            async for part in parts:
                fields = dict(line.split(": ", 1) for line in part.decode().splitlines() if ": " in line)
                last_event_id = fields["id"]
                print(f"{name}: {fields['data']} %")
    return last_event_id


async def main() -> None:
    """Play a client that loses its connection."""
    async with feeds, site:
        last_event_id = await watch("before", 1)
        print("the connection breaks")
        await anyio.sleep(1)
        await watch("after", 60, last_event_id)
    print(f"parts built: {len(built)}")


site = InProcess(app)

if __name__ == "__main__":
    anyio.run(main)
