"""Bodies: not a byte is lost, however they come and whenever they are read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from hashlib import sha256

from ._answers import Ending
from ._observation import Expectation, Fate
from ._scenario import Scenario
from ._stage import Stage

_BODY = bytes(range(256)) * 4096  # 1 MiB
_PARTS = (1, 1000, 4096, 65_536, 7, 30_000)  # sizes of chunks, over and over
_PATIENCE = 15.0
_WHOLE = Expectation(Fate.FINISHED, 200, frozenset({Ending.COMPLETE}))


def bodies() -> Iterator[Scenario]:
    """Yield all scenarios about bodies."""
    for mebibytes, late in ((1, 0), (1, 0.2), (20, 0), (20, 0.2)):
        when = "late" if late else "at once"
        about = f"{mebibytes} MiB, read {when}"
        key = f"{mebibytes}-{'late' if late else 'early'}"
        yield _body(f"length-{key}", f"{about}, with a length", partial(_length, mebibytes, late))
        yield _body(f"chunked-{key}", f"{about}, chunked", partial(_chunked, mebibytes, late))
    yield _body("http2", "20 MiB, read late, HTTP/2", partial(_http2, 20, 0.2), "http/2")
    yield _body("form", "a form with a file", _form, has_control=False)
    for stack in ("around-base", "in-base", "mounted", "twice"):
        yield _body(
            f"{stack}", f"1 MiB, read late, middleware {stack}", partial(_length, 1, 0.2, stack=stack)
        )
    yield _body("asked-for", "an upload that waits to be asked for", _asked_for)


def _body(
    name: str, title: str, play: partial[object] | object, *needs: str, has_control: bool = True
) -> Scenario:
    return Scenario("Bodies", f"body/{name}", title, play, _WHOLE, frozenset(needs), has_control)  # type: ignore[arg-type]


async def _length(mebibytes: int, late: float, stage: Stage, *, stack: str = "outermost") -> None:
    client = await stage.http1()
    body = _BODY * mebibytes
    await client.request("POST", stage.target("upload", stack=stack, query={"late": late}), length=len(body))
    await client.send_body(body)
    stage.answer = await client.read(_PATIENCE)
    _compare(stage, body)


async def _chunked(mebibytes: int, late: float, stage: Stage) -> None:
    client = await stage.http1()
    body = _BODY * mebibytes
    await client.request(
        "POST", stage.target("upload", query={"late": late}), {"Transfer-Encoding": "chunked"}
    )
    start = number = 0
    while start < len(body):
        part = body[start : start + _PARTS[number % len(_PARTS)]]
        await client.send_chunk(part)
        start, number = start + len(part), number + 1
    await client.send_chunk(b"")
    stage.answer = await client.read(_PATIENCE)
    _compare(stage, body)


async def _http2(mebibytes: int, late: float, stage: Stage) -> None:
    client = await stage.http2()
    body = _BODY * mebibytes
    await client.request("POST", stage.target("upload", query={"late": late}), length=len(body))
    await client.send_body(body)
    stage.answer = await client.read(_PATIENCE)
    _compare(stage, body)


async def _form(stage: Stage) -> None:
    client = await stage.http1()
    head = b'--cut\r\nContent-Disposition: form-data; name="file"; filename="body"\r\n\r\n'
    form = head + _BODY + b"\r\n--cut--\r\n"
    content_type = {"Content-Type": "multipart/form-data; boundary=cut"}
    await client.request("POST", stage.target("form"), content_type, length=len(form))
    await client.send_body(form)
    stage.answer = await client.read(_PATIENCE)
    _compare(stage, _BODY)


async def _asked_for(stage: Stage) -> None:
    """A handler that has not asked for the body must not make its client send it."""
    client = await stage.http1()
    await client.request(
        "POST", stage.target("upload", query={"late": 0.3}), {"Expect": "100-continue"}, length=5
    )
    await client.read(0.15, until=0)
    if client.answer.interim is not None:
        stage.note("asked", "the client was asked for its body before the handler was")
    else:
        await client.read(_PATIENCE, until=0)
    await client.send_body(b"hello")
    stage.answer = await client.read(_PATIENCE)
    _compare(stage, b"hello")


def _compare(stage: Stage, body: bytes) -> None:
    if stage.answer.ending is not Ending.COMPLETE or stage.answer.status != 200:
        return
    arrived = json.loads(stage.answer.body)
    if arrived != {"size": len(body), "sha256": sha256(body).hexdigest()}:
        stage.note("body", f"{arrived['size']} of {len(body)} bytes arrived, or others than were sent")
