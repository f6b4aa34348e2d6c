"""Awaitables that are taken their first step by hand, which is the only one that most of them need."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from types import CoroutineType, coroutine
from typing import Any, TypeAlias, cast

Steps: TypeAlias = Coroutine[Any, Any, Any]


def steps_of(awaitable: Any) -> Steps:
    """Return what can be taken by steps of what some function returned to be awaited."""
    if type(awaitable) is CoroutineType:
        return cast("Steps", awaitable)
    return _await(awaitable)


async def _await(awaitable: Any) -> Any:
    return await awaitable


@coroutine
def go_on(steps: Steps, trap: Any) -> Generator[Any, Any, Any]:
    """Await the rest of what has been taken one step, and is waiting for *trap* since.

    It may be another task that does so, if what has been done up to now does not depend on the task.
    """
    resume: Callable[[Any], Any]
    while True:
        try:
            value = yield trap
        except BaseException as error:
            resume, argument = steps.throw, error
        else:
            if value is None:  # on asyncio it always is: no need to pass each step on
                return (yield from steps.__await__())
            resume, argument = steps.send, value
        try:
            trap = resume(argument)
        except StopIteration as end:
            return end.value
        finally:
            del argument  # an error and this frame would keep each other
