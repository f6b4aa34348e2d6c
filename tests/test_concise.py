"""What an interrupted task of asyncio's is told: by whom, in a word or two.

Not on Trio, whose own words are short: nothing of it is changed there.
"""

from __future__ import annotations

import asyncio
from asyncio import current_task
from typing import Any, cast

import pytest
from anyio import CancelScope, create_task_group, sleep_forever, wait_all_tasks_blocked
from anyio._backends._asyncio import CancelScope as AsyncioCancelScope
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
    assert words.endswith(" by 'supervisor'; reason: manual: enough")


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
    """A scope of a release that is not known yet: it wants to know more of the task than its name."""

    cancel_called = _cancel_called = False
    _cancel_reason = ""
    _host_task: object = None

    def _deliver_cancellation(self, *args: object) -> None:  # spelling: theirs
        """Interrupt whoever is in it."""

    def cancel(self, reason: str | None = None) -> None:
        """Cancel it."""
        task: Any = current_task()
        task.get_coro()


class OtherLoopScope(Scope):
    """One that asks for the task of a loop."""

    def cancel(self, reason: str | None = None) -> None:
        """Cancel it."""
        current_task(self)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


class TellingScope(Scope):
    """One that hands the task on."""

    def cancel(self, reason: str | None = None) -> None:
        """Cancel it."""
        task = current_task()
        self._cancel_reason = f"by somebody: {task} by {task}; reason: {reason}"
        self._deliver_cancellation(self, task)  # spelling: theirs


class SilentScope(Scope):
    """One that asks for no task."""

    def cancel(self, reason: str | None = None) -> None:
        """Cancel it."""


class CompiledScope(Scope):
    """One that was not written in Python, as far as can be seen."""

    cancel = print  # type: ignore[assignment]


class PatchedScope(Scope):
    """One whose method somebody has replaced by another module's."""

    cancel: Any = AsyncioCancelScope.cancel


@pytest.mark.parametrize(
    "scope_type",
    [Scope, OtherLoopScope, TellingScope, SilentScope, CompiledScope, PatchedScope],
)
async def test_what_is_not_as_known_is_called_as_it_is(scope_type: Any) -> None:
    """
    A release of AnyIO's that does it in another way is right, whatever it says.
    """
    assert concise_cancel(scope_type) is None


async def test_the_trial_needs_no_task() -> None:
    """
    What is found where no task runs holds for all tasks.
    """
    found: list[object] = []
    scope_type = type(CancelScope())
    asyncio.get_running_loop().call_soon(lambda: found.append(concise_cancel(scope_type)))

    await checkpoint()

    assert found != [None]
    assert len(found) == 1


async def test_a_task_without_a_name_is_a_task() -> None:
    """
    Whatever its name does: the scope would say that it is cancelled, and nobody would be interrupted.
    """

    class Task:
        pass

    cancel: Any = concise_cancel(type(CancelScope()))
    scope = CancelScope()
    nameless: Any = Task()
    loop, task = asyncio.get_running_loop(), cast("Any", current_task())
    asyncio._leave_task(loop, task)
    asyncio._enter_task(loop, nameless)
    try:
        cancel(scope, "enough")
    finally:
        asyncio._leave_task(loop, nameless)
        asyncio._enter_task(loop, task)

    with scope, pytest.raises(asyncio.CancelledError, match="by a task; reason: enough") as info:
        await sleep_forever()
    assert info.value.args
    assert scope.cancel_called


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
