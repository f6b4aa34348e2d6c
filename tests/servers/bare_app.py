"""An application without the library: it shows what servers do by themselves.

The query string of a request is the key of what is recorded about it.
"""

from __future__ import annotations

from tests.asgi_peer import Message, Receive, Send
from tests.servers.recording import record


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Answer by path."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    key = scope["query_string"].decode()
    paths = {"/": hello, "/echo": echo, "/wait": wait, "/stream": stream, "/fail": fail}
    try:
        await (websocket if scope["type"] == "websocket" else paths[scope["path"]])(key, receive, send)
    finally:
        record("returned", key=key)


async def lifespan(receive: Receive, send: Send) -> None:
    """Record the server's start and its end."""
    for phase in ("startup", "shutdown"):
        await receive()
        record(phase)
        await send({"type": f"lifespan.{phase}.complete"})


async def hello(key: str, receive: Receive, send: Send) -> None:
    """Answer at once."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def echo(key: str, receive: Receive, send: Send) -> None:
    """Send the request's body back, part by part."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    more = True
    while more:
        message = await receive()
        more = message["more_body"]
        await send({"type": "http.response.body", "body": message["body"], "more_body": more})


async def wait(key: str, receive: Receive, send: Send) -> None:
    """Wait until the client has left."""
    record("waiting", key=key)
    while (message := await receive())["type"] != "http.disconnect":
        record("received", key=key, size=len(message["body"]))
    record("disconnected", key=key)


async def stream(key: str, receive: Receive, send: Send) -> None:
    """Send one part, and the rest never."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    await wait(key, receive, send)


async def fail(key: str, receive: Receive, send: Send) -> None:
    """Raise."""
    raise ZeroDivisionError("as the test asked")


async def websocket(key: str, receive: Receive, send: Send) -> None:
    """Send messages back until the client has left."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": message["text"]})
    record("disconnected", key=key, code=message["code"])
