"""Knowing of an interruption before the code does that is interrupted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from types import coroutine
from typing import Any, TypeVar

from ..asgi._steps import steps_of

T = TypeVar("T")


@coroutine
def tell_of_interruptions(
    awaitable: Awaitable[T], tell: Callable[[BaseException], object]
) -> Generator[Any, Any, T]:
    """Await something, and *tell* of what the event loop raises in it, before it does."""
    steps = steps_of(awaitable)
    try:
        trap = steps.send(None)
        while True:
            try:
                value = yield trap
            except BaseException as error:
                tell(error)
                interruption = error
            else:
                sent = getattr(value, "error", None)  # by Trio, for the function that waits to raise
                if sent is not None:
                    tell(sent)
                trap = steps.send(value)
                continue
            try:
                trap = steps.throw(interruption)
            finally:
                del interruption  # it and this frame would keep each other
    except StopIteration as end:
        result: T = end.value
        return result
