"""Await something, and learn whether it waited."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
Work: TypeAlias = Coroutine[Any, Any, T]


@coroutine
def and_whether_it_waited(work: Work[T]) -> Generator[Any, Any, tuple[T, bool]]:
    """Await *work*, and return its value, and whether it suspended this task.

    If it did, the event loop had its turn, and a cancelation would have arrived. Else ``await`` is not a
    checkpoint, although it looks like one.

    This is ``yield from`` by hand, which alone does not tell: what is sent in, thrown in or closed here is so
    in *work*. As soon as that has told, and no more than ``None`` was sent in, it goes on without us: on
    asyncio always.

    Args:
        work: A coroutine, or what else can be sent to, thrown into and closed.
    """
    try:
        wish = work.send(None)
    except StopIteration as done:
        return done.value, False
    while True:
        answer = thrown = None
        try:
            answer = yield wish
        except GeneratorExit:
            work.close()
            raise
        except BaseException as error:
            thrown = error
        if answer is None and thrown is None:
            del wish  # it may hold what *work* has got from it, and has let go long before this ends
            # pyright knows no value of it, and a cast would be one more call for each item
            return (yield from work), True  # pyright: ignore[reportUnknownVariableType]
        try:  # not while *thrown* is handled, which would become part of the story of what comes out
            wish = work.send(answer) if thrown is None else work.throw(thrown)
        except StopIteration as done:
            return done.value, True
        finally:
            del thrown  # else it would be in a circle with this frame
