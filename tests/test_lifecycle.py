"""The life of an operation: which step follows which, and that nothing is left when it is over."""

from __future__ import annotations

import gc
import sys
import types
import weakref
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from itertools import count
from typing import Any

import anyio
import pytest
from anyio import CancelScope, create_task_group, sleep, sleep_forever
from anyio.lowlevel import checkpoint

from hother.cancelable import (
    Cancelable,
    CancelationError,
    CancelationReason,
    CancelationToken,
    LifecycleError,
    ManualCancelation,
    OperationContext,
    OperationStatus,
    current_operation,
)

needs_uncancel = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="asyncio cannot tell cancelations apart before Python 3.11"
)

ENDINGS = (
    "never entered",
    "completed",
    "failed",
    "token",
    "operation",
    "parent",
    "timeout",
    "quiet",
    "check",
    "outside",
    "group",
)


# --- Statuses


def test_a_status_is_its_word() -> None:
    """
    In JSON and in log lines, a status is a plain string.
    """
    assert str(OperationStatus.RUNNING) == f"{OperationStatus.RUNNING}" == "running"
    assert OperationStatus("running") is OperationStatus.RUNNING


def test_three_statuses_are_final() -> None:
    """
    Nothing follows them.
    """
    final = {status for status in OperationStatus if status.is_final}

    assert final == {OperationStatus.COMPLETED, OperationStatus.CANCELLED, OperationStatus.FAILED}


async def test_an_operation_goes_from_pending_over_running_to_its_end() -> None:
    """
    One can always ask where it stands.
    """
    operation = Cancelable()
    statuses = [operation.status]

    async with operation:
        statuses.append(operation.status)
        async with operation.shield():
            statuses.append(operation.status)
        statuses.append(operation.status)
    statuses.append(operation.status)

    assert statuses == [
        OperationStatus.PENDING,
        OperationStatus.RUNNING,
        OperationStatus.SHIELDED,
        OperationStatus.RUNNING,
        OperationStatus.COMPLETED,
    ]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, GeneratorExit])
async def test_an_error_fails_the_operation_and_passes_untouched(error: type[BaseException]) -> None:
    """
    The very object leaves the block, with no context added to it.
    """
    raised = error()

    with pytest.raises(error) as caught:
        async with Cancelable() as operation:
            raise raised

    assert caught.value is raised
    assert raised.__context__ is None
    assert raised.__cause__ is None
    assert operation.status is OperationStatus.FAILED
    assert operation.context.error == repr(raised)
    assert not operation.is_cancelled


async def test_leaving_the_block_early_completes_the_operation() -> None:
    """
    By ``return`` or ``break``, with its value.
    """
    operation = Cancelable()

    async def work() -> int:
        async with operation:
            return 42

    assert await work() == 42
    assert operation.status is OperationStatus.COMPLETED


# --- Wrong use


@pytest.mark.parametrize("how", ["completed", "failed", "cancelled"])
async def test_entering_a_used_operation_is_refused(how: str) -> None:
    """
    No stale reason or deadline can come into a second block.
    """
    operation = Cancelable(raise_on_cancel=False)
    try:
        async with operation:
            if how == "failed":
                raise ZeroDivisionError
            if how == "cancelled":
                operation.cancel()
                await sleep_forever()
    except ZeroDivisionError:
        pass
    before = operation.context

    with pytest.raises(LifecycleError, match="was entered already; a Cancelable serves one block"):
        async with operation:
            pytest.fail("the block was entered")

    assert operation.context == before
    assert current_operation() is None


async def test_entering_an_operation_twice_at_once_is_refused() -> None:
    """
    The first block is not harmed, whether the second try is inside it or in another task.
    """

    async def intrude(operation: Cancelable) -> None:
        with pytest.raises(LifecycleError, match=r"running at 0x.* was entered already"):
            async with operation:
                pytest.fail("the block was entered")

    async with Cancelable(timeout=5) as operation:
        await intrude(operation)
        async with create_task_group() as group:
            group.start_soon(intrude, operation)

        assert operation.status is OperationStatus.RUNNING
        assert current_operation() is operation

        await sleep(1)

    assert operation.status is OperationStatus.COMPLETED


def test_without_an_event_loop_an_operation_cannot_be_entered() -> None:
    """
    The error is the backend's, and the operation can still be used.
    """
    operation = Cancelable()

    with pytest.raises(RuntimeError):
        operation.__aenter__().send(None)

    assert operation.status is OperationStatus.PENDING
    assert current_operation() is None


# --- Snapshots


async def test_a_context_is_a_snapshot() -> None:
    """
    It tells how things were, and does not change with them.
    """
    operation = Cancelable(name="report", operation_id="7", metadata={"user": "bob"})

    before = operation.context
    async with operation:
        await sleep(2)
        during = operation.context
        operation.metadata["rows"] = 3
        await sleep(1)
    await sleep(10)
    after = operation.context

    assert before == OperationContext(
        id="7",
        name="report",
        status=OperationStatus.PENDING,
        parent_id=None,
        cancelation=None,
        error=None,
        started_at=None,
        duration=None,
        metadata={"user": "bob"},
    )
    assert (during.status, during.duration) == (OperationStatus.RUNNING, 2)
    assert during.metadata == {"user": "bob"}
    assert (after.status, after.duration) == (OperationStatus.COMPLETED, 3)
    assert after.metadata == {"user": "bob", "rows": 3}
    assert during.started_at == after.started_at


def test_metadata_of_the_caller_is_copied() -> None:
    """
    Writing on the operation does not write into somebody's defaults.
    """
    defaults = {"user": "bob"}

    Cancelable(metadata=defaults).metadata["rows"] = 3

    assert defaults == {"user": "bob"}


async def test_a_context_names_the_operation_above() -> None:
    """
    The parent, or else the operation around the block; also when it is all over.
    """
    boss = Cancelable(operation_id="boss")

    async with Cancelable(operation_id="outer") as outer:
        async with Cancelable() as inner, Cancelable(parent=boss) as child:
            assert (inner.context.parent_id, child.context.parent_id) == ("outer", "boss")

    assert (inner.context.parent_id, child.context.parent_id) == ("outer", "boss")
    assert outer.context.parent_id is None

    del outer, boss
    gc.collect()

    assert inner.context.parent_id == "outer"


# --- Nothing is left behind


async def run(how: str, token: CancelationToken, parent: Cancelable) -> weakref.ref[Cancelable]:
    """Bring an operation to an end of the given kind, and keep nothing but a weak reference."""
    operation = Cancelable(
        timeout=1,
        tokens=[token, CancelationToken.any_of(token)],
        parent=parent,
        raise_on_cancel=how != "quiet",
    )
    operation.on_cancel(lambda _: operation)
    if how == "never entered":
        return weakref.ref(operation)

    def check() -> None:
        operation.cancel()
        operation.check()

    with CancelScope() as scope, suppress(Exception):
        async with operation, create_task_group() as group:
            group.start_soon(operation.token.wait)
            group.start_soon(fail_in_the_end if how == "group" else sleep_forever)
            await anyio.wait_all_tasks_blocked()
            endings: dict[str, Callable[[], object]] = {
                "completed": group.cancel_scope.cancel,
                "failed": lambda: 1 / 0,
                "token": token.cancel,
                "operation": operation.cancel,
                "parent": parent.cancel,
                "timeout": lambda: None,
                "quiet": operation.cancel,
                "check": check,
                "outside": scope.cancel,
                "group": operation.cancel,
            }
            endings[how]()
            await sleep_forever()
    return weakref.ref(operation)


async def fail_in_the_end() -> None:
    try:
        await sleep_forever()
    finally:
        raise ZeroDivisionError


@pytest.mark.parametrize("how", ENDINGS)
async def test_nothing_is_left_of_an_operation(how: str) -> None:
    """
    However it ended: tokens and parents know nothing of it any more, and it can be collected.
    """
    token, parent = CancelationToken(), Cancelable()

    gone = await run(how, token, parent)
    await checkpoint()  # the event loop holds on to what it threw into this task, until its next turn
    gc.collect()

    assert token.statistics().callbacks == 0
    assert parent.token.statistics().callbacks == 0
    assert current_operation() is None
    assert gone() is None


async def test_a_finished_operation_keeps_nothing_of_others_alive_but_what_it_was_made_with() -> None:
    """
    Not the operation around it, nor its task's exceptions.
    """

    async def work() -> tuple[Cancelable, weakref.ref[Cancelable]]:
        async with Cancelable() as outer:
            async with Cancelable(raise_on_cancel=False) as inner:
                inner.cancel()
                await sleep_forever()
            return inner, weakref.ref(outer)

    inner, gone = await work()
    await checkpoint()  # the event loop holds on to what it threw into this task, until its next turn
    gc.collect()

    assert inner.status is OperationStatus.CANCELLED
    assert gone() is None


@pytest.mark.parametrize("how", ["token", "parent", "combine", "follow", "current"])
async def test_thousands_of_short_operations_leave_nothing_on_a_long_one(how: str) -> None:
    """
    A token, a parent, a combination partner of a long life does not grow.
    """
    async with Cancelable() as long:
        operations: dict[str, Callable[[], Cancelable]] = {
            "token": lambda: Cancelable.with_token(long.token),
            "parent": lambda: Cancelable(parent=long),
            "combine": lambda: Cancelable().combine(long),
            "follow": long.follow,
            "current": Cancelable,
        }
        before = long.token.statistics().callbacks
        for _ in range(2_000):
            async with operations[how]():
                pass

        assert long.token.statistics().callbacks == before


@pytest.mark.parametrize("how", ["token", "parent", "combine", "follow"])
def test_operations_that_are_never_entered_leave_nothing(how: str) -> None:
    """
    Making one is not using one.
    """
    long = Cancelable()
    operations: dict[str, Callable[[], Cancelable]] = {
        "token": lambda: Cancelable.with_token(long.token),
        "parent": lambda: Cancelable(parent=long),
        "combine": lambda: Cancelable().combine(long),
        "follow": long.follow,
    }

    kept = [operations[how]() for _ in range(100)]

    assert long.token.statistics().callbacks == 0
    assert len(kept) == 100


# --- Wherever a cancelation strikes


class Rig:
    """One run of a program that uses most of what operations can do, and what it must leave behind."""

    def __init__(self) -> None:
        self.token = CancelationToken()
        self.parent = Cancelable()
        self.operations: list[Cancelable] = []
        self.callbacks: list[OperationContext] = []

    def operation(self, **options: Any) -> Cancelable:
        operation = Cancelable(timeout=100, tokens=[self.token], parent=self.parent, **options)
        operation.on_start(self.slow).on_complete(self.slow).on_cancel(self.slow).on_cancel(self.note)
        self.operations.append(operation)
        return operation

    async def slow(self, _: OperationContext) -> None:
        await checkpoint()

    def note(self, context: OperationContext) -> None:
        self.callbacks.append(context)

    async def child(self) -> None:
        async with self.operation():
            await sleep(1)

    async def main(self) -> None:
        async with self.operation() as outer:
            await outer.report_progress("begin")
            async with outer.shield(10):
                await sleep(1)
            async with self.operation(raise_on_cancel=False) as quiet:
                quiet.cancel()
                await sleep_forever()
            try:
                async with self.operation() as inner, create_task_group() as group:
                    group.start_soon(self.child)
                    await sleep(2)
                    inner.cancel(CancelationReason.CONDITION)
                    await sleep_forever()
            except CancelationError:
                await checkpoint()
            async with Cancelable.with_token(self.token).combine(self.operation()):
                await checkpoint()
        await checkpoint()

    def verify(self) -> None:
        """Look at what is left."""
        assert current_operation() is None
        assert self.token.statistics().callbacks == 0
        assert self.parent.token.statistics().callbacks == 0
        for operation in self.operations:
            assert operation.status.is_final or operation.status is OperationStatus.PENDING
            assert operation.token.statistics().callbacks == 0
            assert (operation.cancelation is not None) >= (operation.status is OperationStatus.CANCELLED)


@types.coroutine
def at_checkpoint(
    number: int, strike: Callable[[], object], program: Coroutine[Any, Any, None]
) -> Generator[Any, Any, bool]:
    """Run *program*, and call *strike* when it comes to wait for the given time. Tells whether it did."""
    struck = False
    resume: Callable[[Any], Any] = program.send
    value: Any = None
    for i in count(1):
        try:
            waits_for = resume(value)
        except StopIteration:
            return struck
        if i == number:
            strike()
            struck = True
        try:
            value = yield waits_for
            resume = program.send
        except BaseException as error:
            value = error
            resume = program.throw
    raise AssertionError("unreachable")


async def test_nothing_is_left_wherever_a_cancelation_from_outside_strikes() -> None:
    """
    At the first checkpoint, the second, and so on, until the program runs to its end.
    """
    for number in count(1):
        rig = Rig()
        with CancelScope() as scope:
            struck = await at_checkpoint(number, scope.cancel, rig.main())
        rig.verify()

        if not scope.cancel_called:
            break

        cancelled = [context.id for context in rig.callbacks]
        assert len(cancelled) == len(set(cancelled))
        for operation in rig.operations:
            # Callbacks are shielded, so they have run to their end, and the last of them noted it.
            assert (operation.status is OperationStatus.CANCELLED) == (operation.id in cancelled)

    assert not struck
    assert number > 15


async def test_nothing_is_left_wherever_its_token_is_cancelled() -> None:
    """
    The same for a cancelation of one's own: it never leaves the program as anything but an error.
    """
    for number in count(1):
        rig = Rig()
        raised: list[Exception] = []
        try:
            struck = await at_checkpoint(number, rig.token.cancel, rig.main())
        except Exception as error:
            raised.append(error)
        rig.verify()
        await checkpoint()

        if not rig.token.is_cancelled:
            break

        assert all(isinstance(error, ManualCancelation) for error in raised)

    assert not struck
    assert number > 15


@needs_uncancel
@pytest.mark.only_on("asyncio")
async def test_nothing_is_left_wherever_a_native_cancel_strikes() -> None:
    """
    ``Task.cancel()`` pierces every shield, and still nothing is left, and the task ends cancelled.
    """
    import asyncio

    async def work(number: int, rig: Rig) -> bool:
        task = asyncio.current_task()
        assert task is not None
        try:
            return await at_checkpoint(number, task.cancel, rig.main())
        finally:
            rig.verify()

    for number in count(1):
        rig = Rig()
        task = asyncio.ensure_future(work(number, rig))
        await asyncio.wait([task])
        if not task.cancelled():
            break

        rig.verify()

    assert not task.result()
    assert number > 15


@needs_uncancel
@pytest.mark.only_on("asyncio")
@pytest.mark.parametrize("first", ["native", "ours"])
async def test_nothing_is_left_wherever_a_native_cancel_and_our_own_strike_together(first: str) -> None:
    """
    The native one wins at every checkpoint of the program.
    """
    import asyncio

    async def work(number: int, rig: Rig) -> bool:
        task = asyncio.current_task()
        assert task is not None
        strikes: list[Callable[[], object]] = [task.cancel, rig.token.cancel]
        if first == "ours":
            strikes.reverse()

        try:
            return await at_checkpoint(number, lambda: [strike() for strike in strikes], rig.main())
        finally:
            rig.verify()

    for number in count(1):
        rig = Rig()
        task = asyncio.ensure_future(work(number, rig))
        await asyncio.wait([task])
        if not rig.token.is_cancelled:
            break

        assert task.cancelled()

        rig.verify()

    assert not task.result()
    assert number > 15
