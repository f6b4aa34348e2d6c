"""Sources made of sources."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio import CancelScope, create_task_group, move_on_after, wait_all_tasks_blocked

from hother.cancelable import (
    AllOfSource,
    AnyOfSource,
    Cancelation,
    CancelationReason,
    CancelationToken,
    CompositeSource,
    ConditionSource,
    TimeoutSource,
    TokenSource,
)

both = pytest.mark.parametrize("kind", [AnyOfSource, AllOfSource])


async def test_any_of_fires_with_the_first() -> None:
    """
    For its reason, and in its name; the others have ended by then.
    """
    token = CancelationToken()
    start = anyio.current_time()

    cancelation = await AnyOfSource([TimeoutSource(5), TokenSource(token), TimeoutSource(2)]).wait()

    assert anyio.current_time() - start == 2
    assert cancelation == Cancelation(
        CancelationReason.TIMEOUT, "timed out after 2 seconds", by="TimeoutSource(2)"
    )
    assert token.statistics().callbacks == 0


async def test_any_of_two_at_once_is_one_of_them() -> None:
    """
    Both have fired before either could be interrupted.
    """
    cancelation = await AnyOfSource([TimeoutSource(2), TimeoutSource(2)]).wait()

    assert cancelation.by == "TimeoutSource(2)"


async def test_all_of_fires_with_the_last() -> None:
    """
    In whatever order they come.
    """
    start = anyio.current_time()
    conditions = ConditionSource(lambda: anyio.current_time() >= start + 3, interval=1)

    cancelation = await AllOfSource([TimeoutSource(1), conditions, TimeoutSource(2)]).wait()

    assert anyio.current_time() - start == 3
    assert cancelation.reason is CancelationReason.CONDITION
    assert cancelation.text.startswith("all of 3 sources fired: test_all_of_fires_with_the_last")
    assert cancelation.cause is not None
    assert cancelation.cause.by == repr(conditions)


async def test_they_can_be_made_of_each_other() -> None:
    """
    All of (any of 1 and 9, 4) is 4; any of (that, 3) is 3.
    """
    start = anyio.current_time()
    inner = AllOfSource([AnyOfSource([TimeoutSource(1), TimeoutSource(9)]), TimeoutSource(4)])

    await AnyOfSource([inner, TimeoutSource(3)]).wait()
    assert anyio.current_time() - start == 3

    await inner.wait()
    assert anyio.current_time() - start == 7


@both
async def test_the_first_that_fails_fails_them_all(kind: Any) -> None:
    """
    With its own error, not within a group, and not waiting for the others.
    """
    token = CancelationToken()

    with pytest.raises(ZeroDivisionError):
        await kind([TokenSource(token), ConditionSource(lambda: 1 / 0 > 1)]).wait()

    assert token.statistics().callbacks == 0


@both
async def test_who_waits_can_be_cancelled(kind: Any) -> None:
    """
    Nothing is left of the sources.
    """
    token = CancelationToken()

    with move_on_after(1) as scope:
        await kind([TokenSource(token), TimeoutSource(5)]).wait()

    assert scope.cancelled_caught
    assert token.statistics().callbacks == 0


@both
async def test_it_ends_at_whatever_moment_it_is_cancelled(kind: Any) -> None:
    """
    Cancelled after each number of steps, until it is done before; only the token's callback ever waits.
    """
    for steps in range(40):
        token = CancelationToken()
        done = False

        async def wait(scope: CancelScope, token: CancelationToken = token) -> None:
            nonlocal done
            with scope:
                await kind([TokenSource(token)] * 2).wait()
                done = True

        async with create_task_group() as tasks:
            scope = CancelScope()
            tasks.start_soon(wait, scope)
            for step in range(steps):
                if step == 8:
                    token.cancel()
                await anyio.lowlevel.checkpoint()
            scope.cancel()

        assert scope.cancelled_caught is not done
        assert token.statistics().callbacks == 0

    assert done
    await wait_all_tasks_blocked()


@both
def test_it_needs_sources(kind: Any) -> None:
    """
    None at all would fire never, or at once: refused, as is what is no source.
    """
    with pytest.raises(ValueError, match=rf"{kind.__name__}\(\) needs at least one source"):
        kind([])
    with pytest.raises(TypeError, match="a source must have"):
        kind([1])


@both
def test_it_shows_what_it_is_made_of(kind: Any) -> None:
    """
    In the order given.
    """
    assert repr(kind([TimeoutSource(1), TimeoutSource(2)])) == (
        f"{kind.__name__}([TimeoutSource(1), TimeoutSource(2)])"
    )


def test_a_composite_is_another_name() -> None:
    """
    The one that earlier versions had.
    """
    assert CompositeSource is AnyOfSource
