"""The leak check: what is left is named."""

from __future__ import annotations

import pytest
from anyio import create_task_group, sleep
from anyio.lowlevel import checkpoint

from hother.cancelable import Cancelable, CancelationToken
from hother.cancelable.testing import LeakCheck


async def test_what_cleans_up_after_itself_passes() -> None:
    """
    Whatever it did in between; also what was there before, and what garbage it leaves.
    """
    token = CancelationToken()
    remove = token.add_callback(print)

    async with Cancelable(name="around"):
        async with LeakCheck():
            async with Cancelable.with_token(token), create_task_group() as tasks:
                tasks.start_soon(sleep, 1)
            token.child()

    remove()


def test_callbacks_that_are_left_are_counted() -> None:
    """
    Beyond those that were there before; without an event loop, too.
    """
    token = CancelationToken()
    token.add_callback(print)
    with pytest.raises(AssertionError, match=r"left behind:\n\* 2 callbacks on <CancelationToken active"):
        with LeakCheck():
            token.add_callback(print)
            token.add_callback(print)

    with pytest.raises(AssertionError, match=r"\* 1 callback on"), LeakCheck():
        new = CancelationToken()
        new.add_callback(print)


async def test_a_block_that_is_left_open_is_named() -> None:
    """
    The operation with it.
    """
    operation = Cancelable(name="forgotten")
    with pytest.raises(AssertionError, match=r"an open block of <Cancelable 'forgotten' running"):
        async with LeakCheck():
            await operation.__aenter__()

    await operation.__aexit__(None, None, None)


async def test_a_task_that_is_left_running_is_named() -> None:
    """
    One that is about to end is not.
    """
    async with create_task_group() as tasks:
        async with LeakCheck():
            tasks.start_soon(checkpoint)
        with pytest.raises(AssertionError, match=r"\* the task .*sleep"):
            async with LeakCheck():
                tasks.start_soon(sleep, 10, name="sleep")
        tasks.cancel_scope.cancel()


async def test_an_error_of_the_block_comes_first() -> None:
    """
    What it left behind is a consequence.
    """
    token = CancelationToken()
    with pytest.raises(KeyError), LeakCheck():
        token.add_callback(print)
        raise KeyError
    with pytest.raises(KeyError):
        async with LeakCheck():
            token.add_callback(print)
            raise KeyError
