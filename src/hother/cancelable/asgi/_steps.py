"""Awaitables that are taken their first step by hand, which is the only one that most of them need."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from types import CoroutineType, coroutine
from typing import Any, TypeAlias, cast

Steps: TypeAlias = Coroutine[Any, Any, Any]

Begun: TypeAlias = tuple[Steps, Any]
"""What has been taken its first step, and what it waits for since."""


# So that type checkers do not conclude that a coroutine is one of nothing known.
_type_of: Callable[[Any], object] = type


def steps_of(awaitable: Any) -> Steps:
    """Return what can be taken by steps of what some function returned to be awaited."""
    if type(awaitable) is CoroutineType:
        return cast("Steps", awaitable)
    return _await(awaitable)


def first_step(awaitable: Any) -> Begun | None:
    """Take the first step of an awaitable that returns nothing. Returns what is left, if that was not all."""
    steps: Steps = awaitable if _type_of(awaitable) is CoroutineType else _await(awaitable)
    # A loop, and no `send()`, which tells of an end by raising: that takes longer than all the rest.
    for trap in steps.__await__():
        return steps, trap
    return None


async def _await(awaitable: Any) -> Any:
    return await awaitable


@coroutine
def go_on(steps: Steps, trap: Any) -> Generator[Any, Any, Any]:
    """Await the rest of what has been taken one step by hand, and is waiting for *trap* since. On asyncio.

    It may be another task that does so, if what has been done up to now does not depend on the task.
    """
    while True:
        interruption = None
        try:
            yield trap  # which asyncio answers with nothing
        except BaseException as error:
            interruption = error
        try:
            if interruption is None:  # then we need not stand in between any more
                return (yield from steps.__await__())
            trap = steps.throw(interruption)
        except StopIteration as end:
            return end.value
        finally:
            del interruption  # it and this frame would keep each other


@coroutine
def resume(steps: Steps) -> Generator[Any, Any, Any]:
    """Await the rest of what has been taken some steps by hand, once there is what it waits for."""
    return (yield from steps.__await__())


def after_a_turn(value: Any) -> Begun:
    """Return what is as if it had waited for a turn of the event loop, and returns *value*."""
    steps = _after_a_turn(value)
    steps.send(None)
    return steps, None


async def _after_a_turn(value: Any) -> Any:
    await _turn()
    return value


@coroutine
def _turn() -> Generator[None, None, None]:
    yield
