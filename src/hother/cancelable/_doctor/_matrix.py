"""Every way to end at every moment, and the same in every place of the middleware."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from ._moments import BACKGROUND, HANDLER, MID_BODY, MOMENTS, STALLED, STARTED, UNASKED, Moment
from ._scenario import Scenario
from ._ways import (
    CLOSE,
    DEADLINE,
    ERROR,
    HALF_CLOSE,
    NATIVE,
    OPERATOR,
    OPERATOR_THREAD,
    RESET,
    STREAM_RESET,
    Way,
    play,
)

_WAYS = (CLOSE, RESET, HALF_CLOSE, DEADLINE, OPERATOR, OPERATOR_THREAD, ERROR, NATIVE)
_PLACES = {
    "added": "with add_middleware",
    "around-base": "around a BaseHTTPMiddleware",
    "in-base": "in a BaseHTTPMiddleware",
    "mounted": "in a mounted application",
    "twice": "installed twice",
}


def matrix() -> Iterator[Scenario]:
    """Yield all of it."""
    for way in _WAYS:
        for moment in MOMENTS:
            # What waits in receive() or send() cannot fail by itself.
            if way is not ERROR or moment not in (MID_BODY, STALLED):
                yield _cell(f"HTTP/1.1: {way.title}", way.name, way, moment)
    for way in (STREAM_RESET, CLOSE, DEADLINE):
        for moment in MOMENTS:
            yield _cell(f"HTTP/2: {way.title}", f"h2-{way.name}", way, moment, http2=True)
    for stack, title in _PLACES.items():
        for way, moment in (
            (CLOSE, UNASKED),
            (CLOSE, HANDLER),
            (CLOSE, STARTED),
            (CLOSE, BACKGROUND),
            (DEADLINE, HANDLER),
        ):
            yield _cell(f"Middleware {title}", f"{stack}-{way.name}", way, moment, stack=stack)


def _cell(
    group: str, prefix: str, way: Way, moment: Moment, *, stack: str = "outermost", http2: bool = False
) -> Scenario:
    title = f"{way.title}: {moment.title}" if stack != "outermost" else moment.title
    return Scenario(
        group,
        f"{prefix}/{moment.name}",
        title,
        partial(play, moment=moment, way=way, stack=stack, http2=http2),
        way.expected_at(moment),
        needs=frozenset({"http/2"}) if http2 else frozenset(),
    )
