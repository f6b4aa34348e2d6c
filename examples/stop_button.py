"""A live stream with a stop button.

    python examples/stop_button.py

and open http://127.0.0.1:8000/ (needs the extra ``demo``). However the stream ends (the button, a reload,
another page, a closed window), the generator on the server ends with it; the page shows which stream
ended and why, as the server tells it. Try the same without the line that adds the middleware, and with
a plain `StreamingResponse`.

The page reads one stream with `EventSource`, as for live news, and one with `fetch`, as for the answer of a
language model: `close()` stops the one and `abort()` the other.
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import anyio
from fastapi import Depends, FastAPI
from fastapi.responses import FileResponse, StreamingResponse

from hother.cancelable import Cancelable, OperationContext
from hother.cancelable.integrations.fastapi import (
    RequestCancelationMiddleware,
    cancelable_dependency,
    cancelable_streaming_response,
)

app = FastAPI()
app.add_middleware(RequestCancelationMiddleware)

ended: list[dict[str, Any]] = []  # newest last; a server of yours would write a log


def journal(name: str, operation: Cancelable) -> None:
    """Have the end of a stream written down."""

    def write(context: OperationContext) -> None:
        reason = "complete" if context.cancelation is None else str(context.cancelation.reason)
        ended.append({"name": name, "reason": reason, "at": time.time()})

    operation.on_cancel(write).on_complete(write)


@app.get("/")
async def page() -> FileResponse:
    """Send the page."""
    return FileResponse(Path(__file__).with_suffix(".html"))


@app.get("/ended")
async def show_ended() -> list[dict[str, Any]]:
    """Tell which streams have ended, why and when."""
    return ended


@app.get("/news/{name}")
async def news(name: str, cancel: Cancelable = Depends(cancelable_dependency)) -> StreamingResponse:
    """Tell the time, for ever."""
    journal(name, cancel)

    async def tick() -> AsyncIterator[str]:
        for number in count():
            yield f"data: tick {number}\n\n"
            await anyio.sleep(0.1)

    return await cancelable_streaming_response(tick(), cancel, media_type="text/event-stream")


@app.get("/answers/{name}")
async def answer(name: str, words: int = 1000, cancel: Cancelable = Depends(cancelable_dependency)) -> Any:
    """Answer word by word, as slowly as somebody who thinks."""
    journal(name, cancel)

    async def think() -> AsyncIterator[str]:
        for number in range(words):
            yield f"word {number} "
            await anyio.sleep(0.1)

    return await cancelable_streaming_response(think(), cancel)


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(app, port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
