"""What frameworks do around a request: streams, files, dependencies, threads, errors, and cleaning up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from ._answers import Ending
from ._moments import BACKGROUND, SMALL_BUFFER, STALLED, STARTED, UNASKED, Moment
from ._observation import Expectation, Fate
from ._scenario import Scenario, Script
from ._stage import TIMEOUT, Stage
from ._ways import CLOSE, DEADLINE, Way, play

_STREAMS = {
    "stream": "StreamingResponse",
    "operation-stream": "cancelable_streaming_response",
    "thread-stream": "StreamingResponse of a plain generator",
    "lines": "FastAPI's generator endpoint",
    "events": "FastAPI's server-sent events",
}
_UNCLOSED = {"thread-stream", "lines", "events"}
_COMPLETE = frozenset({Ending.COMPLETE})
_GONE = Expectation(Fate.DISCONNECT)


def frameworks() -> Iterator[Scenario]:
    """Yield all scenarios about frameworks."""
    for handler, title in _STREAMS.items():
        for way in (CLOSE, DEADLINE):
            yield _of(handler, way, STARTED, f"{title}, {way.title}", by_request=handler in _UNCLOSED)
    yield _of("plain-flood", CLOSE, STALLED, "StreamingResponse, client stalls and closes", by_request=True)
    yield _of("file", CLOSE, BACKGROUND, "FileResponse, client closes, task runs on")
    yield _one(
        "big-file/close",
        "FileResponse, client stalls and closes",
        _big_file,
        Expectation(Fate.ANY),
        control=False,
    )
    for way in (CLOSE, DEADLINE):
        yield _of("session", way, UNASKED, f"a session from Depends is given back, {way.title}", _session)
    yield _one(
        "limited/decorator", "with_cancelation(timeout=...)", partial(_limited, "limited"), _answered(504)
    )
    yield _one(
        "limited/block", "an operation's timeout", partial(_limited, "limited-operation"), _answered(504)
    )
    yield _one(
        "error/handled", "an error with a handler", partial(_error, "handled"), _fails(418), control=False
    )
    yield _one("error/http", "an HTTPException", partial(_error, "http-error"), _fails(409), control=False)
    yield _of("thread", CLOSE, UNASKED, "a def endpoint that asks, client closes")
    yield _of("thread", DEADLINE, UNASKED, "a def endpoint that asks, deadline passes")
    yield _one(
        "thread/deaf",
        "a def endpoint that does not ask is answered for",
        _deaf,
        _deaf_expected(),
        control=False,
    )
    yield _of("cleanup", CLOSE, UNASKED, "cleaning up takes 0.7 s", _cleanup, within=1.5)
    yield _one(
        "asks/close", "is_disconnected() tells the truth", _asks, Expectation(Fate.FINISHED), control=False
    )


def _one(name: str, title: str, script: Script, expected: Expectation, *, control: bool = True) -> Scenario:
    return Scenario("Frameworks", name, title, script, expected, has_control=control)


def _of(
    handler: str,
    way: Way,
    moment: Moment,
    title: str,
    check: Script | None = None,
    within: float | None = None,
    by_request: bool = False,
) -> Scenario:
    """The moment, in another handler.

    Nobody closes a generator of Starlette's or FastAPI's that is suspended, or runs in a thread: it hears
    of its end when it is collected, so that only its request can be timed.
    """
    moment = Moment(
        moment.name,
        moment.title,
        handler,
        moment.bring_about,
        moment.buffer,
        has_started=moment.has_started,
        is_complete=moment.is_complete,
    )
    expected = way.expected_at(moment)
    if within is not None:
        expected = replace(expected, within=within)
    if by_request:
        expected = replace(expected, fate=Fate.ANY)

    async def script(stage: Stage) -> None:
        await play(stage, moment=moment, way=way)
        if check is not None:
            await check(stage)

    return Scenario("Frameworks", f"{handler}/{way.name}", title, script, expected)


def _answered(status: int) -> Expectation:
    return Expectation(Fate.ANY, status, _COMPLETE)


def _fails(status: int) -> Expectation:
    return Expectation(Fate.ERROR, status, _COMPLETE)


def _deaf_expected() -> Expectation:
    return Expectation(Fate.ANY, 504, _COMPLETE)


async def _big_file(stage: Stage) -> None:
    client = await stage.http1(buffer=SMALL_BUFFER)
    await client.request("GET", stage.target("big-file"))
    await stage.wait("ended")
    await stage.run.wait_until_still(0.2, 1)
    client.close()
    if await stage.run.wait("left", stage.missed) is None:
        stage.note("ended", "the response ran on")


async def _session(stage: Stage) -> None:
    if stage.is_bare:
        return
    await stage.run.wait("left", stage.patience)
    if stage.run.count("session given back") != 1:
        stage.note("session", "the session was not given back")
    if stage.run.find("context lost"):
        stage.note("context", "the dependency cleaned up in another context")


async def _limited(handler: str, stage: Stage) -> None:
    client = await stage.http1()
    await client.request("GET", stage.target(handler, timeout=0))
    stage.answer = await client.read(stage.patience)
    await stage.run.wait("left", stage.patience)


async def _error(handler: str, stage: Stage) -> None:
    client = await stage.http1()
    await client.request("GET", stage.target(handler))
    stage.answer = await client.read(stage.patience)
    await stage.run.wait("left", stage.patience)


async def _deaf(stage: Stage) -> None:
    client = await stage.http1()
    await client.request("GET", stage.target("deaf-thread", timeout=TIMEOUT))
    stage.answer = await client.read(stage.patience)
    if stage.run.find("ended") is not None:
        stage.note("late", "the client was not answered before the thread was done")
    await stage.run.wait("left", stage.patience)


async def _cleanup(stage: Stage) -> None:
    if not stage.is_bare and stage.run.find("cleaned") is None:
        stage.note("cleanup", "cleaning up was cut short")


async def _asks(stage: Stage) -> None:
    client = await stage.http1()
    await client.request("GET", stage.target("asks"))
    await stage.wait("began")
    began = stage.run.find("began")
    if began is not None and began["first"]:
        stage.note("truth", "it said yes while the client was there")
    client.close()
    if await stage.run.wait("noticed", 1.0) is None:
        stage.note("truth", "it said no when the client had left")
    await stage.run.wait("left", stage.patience)
