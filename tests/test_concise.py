"""What an interrupted task of asyncio's is told: by whom, in a word or two.

Not on Trio, whose own words are short: nothing of it is changed there.
"""

from __future__ import annotations

import asyncio
from asyncio import current_task
from typing import Any, cast

import pytest
from anyio import CancelScope, create_task_group, sleep_forever, wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from hother.cancelable import Cancelable, CancelationToken
from hother.cancelable._core._concise import concise_cancel

pytestmark = [pytest.mark.only_on("asyncio"), pytest.mark.uvloop]


async def told(cancel: Any) -> str:
    """Return what a task is told that waits in a block, when *cancel* is called with the block's token."""
    token = CancelationToken()
    words: list[str] = []

    async def wait() -> None:
        async with Cancelable(tokens=[token], raise_on_cancel=False):
            try:
                await sleep_forever()
            except asyncio.CancelledError as error:
                words.extend(error.args)
                raise

    async with create_task_group() as tasks:
        tasks.start_soon(wait)
        await wait_all_tasks_blocked()
        cancel(token)
    return " ".join(words)


async def test_an_interrupted_task_is_told_who_did_it_and_why() -> None:
    """
    As AnyIO would tell it, but with the name of who cancelled in place of all that can be said of it.
    """
    task: Any = current_task()
    task.set_name("supervisor")

    words = await told(lambda token: token.cancel(message="enough"))

    assert words.startswith("Cancelled via cancel scope ")
    assert words.endswith(" by supervisor; reason: manual: enough")


async def test_where_no_task_runs_nobody_is_named() -> None:
    """
    A timer is nobody.
    """

    def cancel(token: CancelationToken) -> None:
        asyncio.get_running_loop().call_soon(token.cancel)

    assert " by " not in await told(cancel)


async def test_scopes_of_others_go_on_as_before() -> None:
    """
    Nothing of AnyIO's is changed: who cancels a scope by hand is told of in its words.
    """
    with CancelScope() as scope:
        scope.cancel()
        with pytest.raises(asyncio.CancelledError, match="by <Task pending") as info:
            await sleep_forever()
        raise info.value

    assert scope.cancelled_caught


class Scope:
    """A scope of a release that is not known yet."""

    cancel_called = False

    def cancel(self, reason: str | None = None) -> None:
        """Cancel it, and want to know more of the task than its name."""
        task: Any = current_task()
        task.get_coro()
        self.cancel_called = True


class SilentScope(Scope):
    """One that asks for no task."""

    def cancel(self, reason: str | None = None) -> None:
        """Cancel it."""
        self.cancel_called = True


class IdleScope(Scope):
    """One that does something else."""

    def cancel(self, reason: str | None = None) -> None:
        """Ask for the task, and be done."""
        current_task()


class CompiledScope(Scope):
    """One that was not written in Python, as far as can be seen."""

    cancel = print  # type: ignore[assignment]


@pytest.mark.parametrize("scope_type", [Scope, SilentScope, IdleScope, CompiledScope])
async def test_what_is_not_as_known_is_called_as_it_is(scope_type: Any) -> None:
    """
    A release of AnyIO's that does it in another way is right, whatever it says.
    """
    assert concise_cancel(scope_type) is scope_type.cancel


async def test_the_trial_needs_no_task() -> None:
    """
    What is found where no task runs holds for all tasks.
    """
    found: list[object] = []
    asyncio.get_running_loop().call_soon(lambda: found.append(concise_cancel(cast("Any", Scope))))

    await checkpoint()

    assert found == [Scope.cancel]


async def test_a_cancel_is_the_scopes_own_code() -> None:
    """
    With its arguments and their defaults: it knows no more of scopes than that they can be cancelled.
    """
    scope = CancelScope()
    scope_type: Any = type(scope)
    cancel: Any = concise_cancel(scope_type)

    assert cancel is not scope_type.cancel
    assert cancel.__code__.co_code == scope_type.cancel.__code__.co_code

    cancel(scope)

    assert scope.cancel_called
