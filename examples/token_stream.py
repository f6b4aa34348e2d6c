"""An LLM's answer, token by token; when the reader leaves, the model stops.

The model is a service of its own, asked over HTTP. Here it is an ASGI application in the same process, so
that the example runs alone: ``python -m examples.token_stream`` plays two readers, one of whom leaves after
a second.

What the reader's leaving does: the middleware cancels the request's token, that interrupts the generator
where it waits for the next token, its ``async with`` blocks close the connection to the model, and the
model sees its own client leave. Nobody computes tokens for nobody.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import anyio
from fastapi import Depends, FastAPI
from starlette.responses import Response

from examples.in_process import InProcess
from hother.cancelable import Cancelable
from hother.cancelable.integrations.fastapi import (
    RequestCancelationMiddleware,
    ServerSentEvent,
    cancelable_dependency,
    cancelable_sse_response,
)

# --- The model: a service that counts what it has computed

model = FastAPI()
model.add_middleware(RequestCancelationMiddleware)
computed: list[str] = []
aborted: list[str] = []


@model.get("/generate")
async def generate(prompt: str, cancel: Cancelable = Depends(cancelable_dependency)) -> Response:
    """Compute ten tokens, half a second each."""

    async def tokens() -> AsyncIterator[ServerSentEvent]:
        try:
            for number in range(10):
                await anyio.sleep(0.5)  # on an expensive machine
                computed.append(prompt)
                yield ServerSentEvent(f"{prompt}-{number}")
        except BaseException:
            aborted.append(prompt)
            raise

    return cancelable_sse_response(tokens(), cancel)


# --- The application: it hands the tokens on

app = FastAPI()
app.add_middleware(RequestCancelationMiddleware, default_timeout=60)


@app.get("/chat")
async def chat(prompt: str, cancel: Cancelable = Depends(cancelable_dependency)) -> Response:
    """Answer *prompt*."""

    async def answer() -> AsyncIterator[ServerSentEvent]:
        async with aclosing(ask_model(prompt)) as tokens:
            async for token in tokens:
                yield ServerSentEvent(token)
        yield ServerSentEvent("", event="done")

    return cancelable_sse_response(answer(), cancel)


async def ask_model(prompt: str) -> AsyncGenerator[str, None]:
    """Have the model answer. With httpx: ``client.stream("GET", MODEL, params={"prompt": prompt})``."""
    async with aclosing(upstream.get("/generate", f"prompt={prompt}")) as parts:
        async for part in parts:
            if part.startswith(b"data: "):
                yield part.removeprefix(b"data: ").strip().decode()


async def read(prompt: str, seconds: float) -> None:
    """Read an answer, and leave after so many seconds."""
    with anyio.move_on_after(seconds) as patience:
        async with aclosing(site.get("/chat", f"prompt={prompt}")) as events:
            async for event in events:
                print(f"{prompt} reads {event.decode()!r}")
    if patience.cancelled_caught:
        print(f"{prompt} has left")


async def main() -> None:
    """Play two readers."""
    async with upstream, site, anyio.create_task_group() as readers:
        readers.start_soon(read, "patient", 60)
        readers.start_soon(read, "hasty", 1.2)
    print(f"computed for patient: {computed.count('patient')}, for hasty: {computed.count('hasty')}")
    print(f"aborted: {', '.join(aborted)}")


upstream = InProcess(model)
site = InProcess(app)

if __name__ == "__main__":
    anyio.run(main)
