"""Await something, and learn whether it waited."""

from __future__ import annotations

from collections.abc import Generator
from types import coroutine
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from hother.cancelable._core._suspending import and_whether_it_waited


async def returns(value: int, waits: int) -> int:
    for _ in range(waits):
        await checkpoint()
    return value


@pytest.mark.parametrize("waits", [0, 1, 3])
async def test_it_returns_the_value_and_whether_it_waited(waits: int) -> None:
    """
    However often.
    """
    assert await and_whether_it_waited(returns(5, waits)) == (5, waits > 0)


async def test_a_cancelation_reaches_what_waits() -> None:
    """
    It is the backend's own, and what is raised in its place has no more of a story than without us.
    """
    seen: list[BaseException] = []

    async def replaces() -> None:
        try:
            await anyio.sleep_forever()
        except BaseException as error:
            seen.append(error)
        raise LookupError("instead")

    with anyio.CancelScope() as scope:
        scope.cancel()
        with pytest.raises(LookupError) as caught:
            await and_whether_it_waited(replaces())

    assert isinstance(seen[0], anyio.get_cancelled_exc_class())
    assert caught.value.__context__ is None


def test_all_goes_through_as_with_yield_from() -> None:
    """
    What is sent, what is thrown, and being closed.
    """
    heard: list[object] = []

    @coroutine
    def asks() -> Generator[Any, Any, str]:
        try:
            heard.append((yield "first"))
            try:
                yield "second"
            except ValueError as error:
                heard.append(error)
            yield "third"
        finally:
            heard.append("closed")
        return "never"

    async def work() -> str:
        return await asks()

    step: Any = and_whether_it_waited(work())
    assert step.send(None) == "first"
    assert step.send("answer") == "second"
    error = ValueError()
    assert step.throw(error) == "third"
    step.close()

    assert heard == ["answer", error, "closed"]
