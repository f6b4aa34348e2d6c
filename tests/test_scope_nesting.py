"""Who catches what: an operation's own cancelation, and one that comes from outside.

An operation catches what it caused, and nothing else, however scopes, task groups and timeouts of
AnyIO, asyncio and Trio are nested in it and around it.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio
import pytest
from anyio import (
    CancelScope,
    create_task_group,
    fail_after,
    get_cancelled_exc_class,
    move_on_after,
    sleep,
    sleep_forever,
    wait_all_tasks_blocked,
)
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint
from hypothesis import given
from hypothesis import strategies as st

from hother.cancelable import (
    Cancelable,
    Cancelation,
    CancelationError,
    CancelationReason,
    CancelationToken,
    ManualCancelation,
    OperationStatus,
    TimeoutCancelation,
    current_operation,
)
from hother.cancelable._block import Block

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

HOUR = 3600.0

EXTERNAL = Cancelation(CancelationReason.EXTERNAL)

needs_uncancel = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="asyncio cannot tell cancelations apart before Python 3.11"
)


# --- One's own cancelation


async def test_a_block_catches_its_own_cancelation() -> None:
    """
    What leaves the block is an ordinary exception, caused by the backend's own.
    """
    token = CancelationToken()
    inside: list[BaseException] = []

    with pytest.raises(CancelationError) as caught:
        async with Cancelable.with_token(token) as operation:
            token.cancel(message="enough")
            with noting(inside):
                await sleep_forever()

    assert type(caught.value) is ManualCancelation
    assert caught.value.cancelation is token.cancelation
    assert [caught.value.__cause__] == inside
    assert operation.status is OperationStatus.CANCELLED

    await checkpoint()


async def test_a_quiet_block_is_left_without_an_error() -> None:
    """
    With ``raise_on_cancel=False`` the code after the block runs on, and asks if it wants to know.
    """
    async with Cancelable(raise_on_cancel=False) as operation:
        operation.cancel()
        await sleep_forever()

    assert operation.status is OperationStatus.CANCELLED
    assert operation.is_cancelled

    await checkpoint()


async def test_a_block_that_ends_in_spite_of_its_cancelation_has_completed() -> None:
    """
    Without a checkpoint nothing was cut short, and a result that exists is not thrown away.
    """
    async with Cancelable() as operation:
        operation.cancel()

    assert operation.status is OperationStatus.COMPLETED
    assert operation.is_cancelled

    await checkpoint()


async def test_an_error_while_unwinding_beats_the_cancelation() -> None:
    """
    What went wrong is more important than what was called off.
    """
    with pytest.raises(ZeroDivisionError):
        async with Cancelable() as operation:
            operation.cancel()
            try:
                await sleep_forever()
            finally:
                raise ZeroDivisionError

    assert operation.status is OperationStatus.FAILED

    await checkpoint()


async def test_an_own_error_from_check_counts_as_the_cancelation() -> None:
    """
    A busy block that asks and a waiting block that is interrupted end the same way.
    """
    with pytest.raises(ManualCancelation) as caught:
        async with Cancelable(name="busy") as operation:
            operation.cancel(message="enough")
            operation.check()

    assert operation.status is OperationStatus.CANCELLED
    assert str(caught.value) == "busy: enough"

    async with Cancelable(raise_on_cancel=False) as operation:
        operation.cancel()
        operation.check()

    assert operation.status is OperationStatus.CANCELLED


async def test_an_own_error_from_a_token_counts_as_the_cancelation() -> None:
    """
    It does not matter whether the operation was asked or the token behind it.
    """
    token = CancelationToken()

    async with Cancelable.with_token(token, raise_on_cancel=False) as operation:
        token.cancel()
        token.check()

    assert operation.status is OperationStatus.CANCELLED


async def test_the_error_of_another_operation_is_an_error() -> None:
    """
    An operation is not cancelled because something inside it was.
    """
    with pytest.raises(ManualCancelation):
        async with Cancelable() as outer:
            async with Cancelable() as inner:
                inner.cancel()
                await sleep_forever()

    assert inner.status is OperationStatus.CANCELLED
    assert outer.status is OperationStatus.FAILED
    assert not outer.is_cancelled


async def test_a_cancelled_operation_interrupts_the_task_group_in_it() -> None:
    """
    All tasks of the block end, and one error says why.
    """
    ended: list[int] = []

    async def work(i: int) -> None:
        try:
            await sleep_forever()
        finally:
            ended.append(i)

    with pytest.raises(TimeoutCancelation):
        async with Cancelable(timeout=1), create_task_group() as group:
            for i in range(3):
                group.start_soon(work, i)

    assert sorted(ended) == [0, 1, 2]


async def test_a_timeout_in_one_task_leaves_its_siblings_alone() -> None:
    """
    The task group goes on, and so does the code after it.
    """
    results: list[str] = []

    async def short() -> None:
        async with Cancelable(timeout=1, raise_on_cancel=False):
            await sleep_forever()
        results.append("short")

    async def long() -> None:
        await sleep(2)
        results.append("long")

    async with create_task_group() as group:
        group.start_soon(short)
        group.start_soon(long)

    assert results == ["short", "long"]


async def test_a_timeout_in_one_task_fails_its_task_group() -> None:
    """
    A cancelation that nobody handles is an error like others, and never vanishes.
    """

    async def short() -> None:
        async with Cancelable(timeout=1):
            await sleep_forever()

    with pytest.RaisesGroup(TimeoutCancelation):
        async with create_task_group() as group:
            group.start_soon(short)
            group.start_soon(sleep_forever)


# --- Exception groups


async def test_errors_beside_the_own_cancelation_go_on_without_it() -> None:
    """
    A group of errors and cancelations leaves the block as a group of the errors.
    """

    async def fail() -> None:
        try:
            await sleep_forever()
        finally:
            raise ZeroDivisionError

    with pytest.RaisesGroup(ZeroDivisionError, ZeroDivisionError):
        async with Cancelable() as operation, create_task_group() as group:
            group.start_soon(fail)
            group.start_soon(fail)
            group.start_soon(sleep_forever)
            await wait_all_tasks_blocked()
            operation.cancel()

    assert operation.status is OperationStatus.FAILED

    await checkpoint()


async def test_a_hand_made_group_is_split() -> None:
    """
    Own cancelations are taken out of a group at any depth; what remains keeps its shape and message.
    """
    with pytest.RaisesGroup(pytest.RaisesGroup(KeyError, match="inner"), ValueError, match="outer"):
        async with Cancelable() as operation:
            operation.cancel()
            try:
                await sleep_forever()
            except get_cancelled_exc_class() as cancelled:
                inner = BaseExceptionGroup("inner", [KeyError("key"), cancelled])
                raise BaseExceptionGroup("outer", [ValueError("value"), inner]) from None

    assert operation.status is OperationStatus.FAILED


async def test_a_group_of_own_cancelations_is_an_own_cancelation() -> None:
    """
    Being wrapped changes nothing.
    """
    with pytest.raises(ManualCancelation):
        async with Cancelable() as operation:
            operation.cancel()
            try:
                await sleep_forever()
            except get_cancelled_exc_class() as cancelled:
                raise BaseExceptionGroup("group", [cancelled]) from None

    assert operation.status is OperationStatus.CANCELLED


async def test_tasks_that_ask_and_tasks_that_are_interrupted_are_cancelled_alike() -> None:
    """
    A group of nothing but the operation's own errors, from ``check()``, is its cancelation, too.
    """

    async def work(operation: Cancelable) -> None:
        try:
            await sleep_forever()
        finally:
            operation.check()

    with pytest.raises(ManualCancelation):
        async with Cancelable() as operation, create_task_group() as group:
            group.start_soon(work, operation)
            group.start_soon(work, operation)
            await wait_all_tasks_blocked()
            operation.cancel()

    assert operation.status is OperationStatus.CANCELLED


async def test_a_quiet_block_still_raises_errors() -> None:
    """
    Being quiet is about the cancelation only.
    """

    async def fail() -> None:
        try:
            await sleep_forever()
        finally:
            raise ZeroDivisionError

    with pytest.RaisesGroup(ZeroDivisionError):
        async with Cancelable(raise_on_cancel=False) as operation, create_task_group() as group:
            group.start_soon(fail)
            await wait_all_tasks_blocked()
            operation.cancel()


# --- A cancelation from outside


@pytest.mark.parametrize("raise_on_cancel", [True, False])
async def test_a_cancelation_from_outside_passes_untouched(raise_on_cancel: bool) -> None:
    """
    The very object that the backend raised in the block leaves it, whatever the operation's options.
    """
    seen: list[BaseException] = []

    with CancelScope() as scope:
        with noting(seen):
            async with Cancelable(raise_on_cancel=raise_on_cancel) as operation:
                scope.cancel()
                with noting(seen):
                    await sleep_forever()

    assert scope.cancelled_caught
    assert type(seen[0]) is get_cancelled_exc_class()
    assert seen[0] is seen[1]
    assert operation.status is OperationStatus.CANCELLED
    assert operation.cancelation == EXTERNAL
    assert current_operation() is None


@pytest.mark.parametrize("first", ["outside", "inside"])
@pytest.mark.parametrize("raise_on_cancel", [True, False])
async def test_outside_wins_over_inside(first: str, raise_on_cancel: bool) -> None:
    """
    Cancelled by both, the block belongs to the outer scope, whoever was first.
    """
    with CancelScope() as scope:
        async with Cancelable(raise_on_cancel=raise_on_cancel) as operation:
            cancels: list[Callable[[], object]] = [scope.cancel, operation.cancel]
            for cancel in cancels if first == "outside" else reversed(cancels):
                cancel()
            await sleep_forever()
        pytest.fail("the cancelation was swallowed")

    assert scope.cancelled_caught
    assert operation.status is OperationStatus.CANCELLED
    assert operation.cancelation == Cancelation(CancelationReason.MANUAL)


async def test_outside_wins_while_the_block_unwinds() -> None:
    """
    Half way out of its own cancelation, an operation gives way to the scope around it.
    """
    with CancelScope() as scope:
        async with Cancelable() as operation:
            operation.cancel()
            try:
                await sleep_forever()
            finally:
                scope.cancel()
        pytest.fail("the cancelation was swallowed")

    assert scope.cancelled_caught


async def test_errors_beside_a_cancelation_from_outside_stay_beside_it() -> None:
    """
    A group that the block does not own leaves it as it is.
    """
    seen: list[BaseException] = []

    with pytest.RaisesGroup(ZeroDivisionError):
        with CancelScope() as scope, noting(seen):
            async with Cancelable() as operation:
                scope.cancel()
                with noting(seen):
                    try:
                        await sleep_forever()
                    except get_cancelled_exc_class() as cancelled:
                        raise BaseExceptionGroup("mixed", [cancelled, ZeroDivisionError()]) from None

    assert seen[0] is seen[1]
    assert operation.status is OperationStatus.FAILED


async def test_a_group_of_cancelations_from_outside_is_one() -> None:
    """
    An operation that was cut short from outside is cancelled, not failed, also if it ran several tasks.
    """
    with CancelScope() as scope:
        async with Cancelable() as operation:
            scope.cancel()
            try:
                await sleep_forever()
            except get_cancelled_exc_class() as cancelled:
                raise BaseExceptionGroup("tasks", [cancelled]) from None

    assert scope.cancelled_caught
    assert operation.status is OperationStatus.CANCELLED


async def test_a_task_group_that_fails_cancels_the_operations_in_it_from_outside() -> None:
    """
    The task group's own error is what remains.
    """
    operation = Cancelable()

    async def work() -> None:
        async with operation:
            await sleep_forever()

    async def fail() -> None:
        await wait_all_tasks_blocked()
        raise ZeroDivisionError

    with pytest.RaisesGroup(ZeroDivisionError):
        async with create_task_group() as group:
            group.start_soon(work)
            group.start_soon(fail)

    assert operation.status is OperationStatus.CANCELLED
    assert operation.cancelation == EXTERNAL


# --- AnyIO's timeouts


async def test_fail_after_around() -> None:
    """
    The shorter timeout outside raises its own error.
    """
    with pytest.raises(TimeoutError) as caught:
        with fail_after(1):
            async with Cancelable(timeout=2) as operation:
                await sleep_forever()

    assert type(caught.value) is TimeoutError
    assert operation.cancelation == EXTERNAL


async def test_fail_after_around_that_is_longer() -> None:
    """
    The shorter timeout inside raises its own error, and the outer scope is not involved.
    """
    with pytest.raises(TimeoutCancelation, match="timed out after 1 seconds"):
        with fail_after(2) as scope:
            async with Cancelable(timeout=1):
                await sleep_forever()

    assert not scope.cancel_called


async def test_fail_after_inside() -> None:
    """
    Its error is an ordinary one to the operation.
    """
    with pytest.raises(TimeoutError) as caught:
        async with Cancelable(timeout=2) as operation:
            with fail_after(1):
                await sleep_forever()

    assert type(caught.value) is TimeoutError
    assert operation.status is OperationStatus.FAILED


async def test_fail_after_inside_that_is_longer() -> None:
    """
    A longer timeout inside changes nothing.
    """
    with pytest.raises(TimeoutCancelation):
        async with Cancelable(timeout=1):
            with fail_after(2):
                await sleep_forever()


async def test_move_on_after_inside_and_around() -> None:
    """
    Scopes inside and outside the block each catch their own; the block is not concerned.
    """
    with move_on_after(3) as around:
        async with Cancelable(timeout=5) as operation:
            with move_on_after(1) as inside:
                await sleep_forever()

            assert anyio.current_time() == pytest.approx(operation.deadline - 4)

            await sleep_forever()

    assert inside.cancelled_caught
    assert around.cancelled_caught
    assert operation.cancelation == EXTERNAL


async def test_the_outer_of_two_equal_deadlines_wins() -> None:
    """
    When both are due at the same moment, the outer block's error is the one to be seen.
    """
    with pytest.raises(TimeoutCancelation) as caught:
        async with Cancelable(timeout=1, name="outer") as outer:
            async with Cancelable(timeout=1, name="inner") as inner:
                await sleep_forever()

    assert caught.value.context is not None
    assert caught.value.context.name == "outer"
    assert (outer.status, inner.status) == (OperationStatus.CANCELLED, OperationStatus.CANCELLED)


# --- Operations in operations


@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_the_cancelled_one_of_nested_operations_catches(depth: int) -> None:
    """
    Those inside it are cancelled from outside; those around it see an ordinary error.
    """
    stack = [Cancelable(name=str(i)) for i in range(3)]

    with pytest.raises(ManualCancelation) as caught:
        async with stack[0], stack[1], stack[2]:
            stack[depth].cancel()
            await sleep_forever()

    assert caught.value.context is not None
    assert caught.value.context.name == str(depth)

    cancelled = [operation.status is OperationStatus.CANCELLED for operation in stack]
    assert cancelled == [i >= depth for i in range(3)]

    reasons = [operation.cancelation and operation.cancelation.reason for operation in stack]
    assert reasons == [None] * depth + [CancelationReason.MANUAL] + [CancelationReason.PARENT] * (2 - depth)


async def test_an_operation_that_ends_with_the_one_around_it_says_so() -> None:
    """
    The inner one's record names the outer one and carries its reason.
    """
    with pytest.raises(TimeoutCancelation):
        async with Cancelable(timeout=1, name="outer") as outer:
            async with Cancelable(name="inner") as inner:
                await sleep_forever()

    assert inner.cancelation is not None
    assert inner.cancelation.reason is CancelationReason.PARENT
    assert inner.cancelation.by == "outer"
    assert inner.cancelation.cause == outer.cancelation


@pytest.mark.parametrize("raise_on_cancel", [True, False])
async def test_operations_that_share_a_token_end_together(raise_on_cancel: bool) -> None:
    """
    The outermost one raises, whatever the inner ones would have done.
    """
    token = CancelationToken()

    with pytest.raises(ManualCancelation) as caught:
        async with Cancelable.with_token(token, name="outer") as outer:
            async with Cancelable.with_token(token, raise_on_cancel=raise_on_cancel) as inner:
                token.cancel()
                await sleep_forever()
            pytest.fail("the cancelation was swallowed")

    assert caught.value.context is not None
    assert caught.value.context.name == "outer"
    assert (outer.status, inner.status) == (OperationStatus.CANCELLED, OperationStatus.CANCELLED)


@pytest.mark.real_time
@pytest.mark.parametrize("raise_on_cancel", [True, False])
@pytest.mark.parametrize("what", ["token", "operation"])
async def test_a_thread_cancels_the_outer_block_while_the_inner_one_unwinds(
    what: str, raise_on_cancel: bool
) -> None:
    """
    The inner block, already on its way out, must not take the outer one's cancelation for its own.
    """
    token = CancelationToken()
    inner = Cancelable.with_token(token.child(), raise_on_cancel=raise_on_cancel)

    with pytest.raises(ManualCancelation, match="from a thread") as caught:
        async with Cancelable.with_token(token, name="outer") as outer:
            async with inner:
                inner.cancel()
                try:
                    await sleep_forever()
                finally:
                    cancel = token.cancel if what == "token" else outer.cancel
                    in_thread(lambda: cancel(message="from a thread"))
            pytest.fail("the cancelation was swallowed")

    assert caught.value.context is not None
    assert caught.value.context.name == "outer"
    assert inner.status is OperationStatus.CANCELLED
    assert inner.cancelation == Cancelation(CancelationReason.MANUAL)


@pytest.mark.real_time
async def test_a_thread_cancels_a_token_of_both_while_the_inner_one_unwinds() -> None:
    """
    The same for one token in both blocks, cancelled in a moment when the loop cannot react.
    """
    token = CancelationToken()

    with pytest.raises(ManualCancelation) as caught:
        async with Cancelable.with_token(token, name="outer"):
            async with Cancelable.with_token(token, name="inner"):
                in_thread(token.cancel)
                await sleep_forever()
            pytest.fail("the cancelation was swallowed")

    assert caught.value.context is not None
    assert caught.value.context.name == "outer"


@pytest.mark.real_time
async def test_a_thread_cancels_just_before_the_block_is_left() -> None:
    """
    A block that needs no more checkpoint has completed; the cancelation hits nothing else.
    """
    token = CancelationToken()

    async with Cancelable.with_token(token) as operation:
        in_thread(token.cancel)

    assert operation.status is OperationStatus.COMPLETED

    await checkpoint()


async def test_an_operation_in_a_child_task_is_cancelled_with_the_block_around_the_group() -> None:
    """
    Nesting reaches across tasks of a group.
    """
    inner = Cancelable()

    async def work() -> None:
        async with inner:
            await sleep_forever()

    with pytest.raises(ManualCancelation):
        async with Cancelable(name="outer") as outer, create_task_group() as group:
            group.start_soon(work)
            await wait_all_tasks_blocked()
            outer.cancel()

    assert inner.status is OperationStatus.CANCELLED
    assert inner.cancelation is not None
    assert (inner.cancelation.reason, inner.cancelation.by) == (CancelationReason.PARENT, "outer")


async def test_an_operation_that_is_gone_does_not_hide_those_around_it() -> None:
    """
    A task that was started in an inner block, left and forgotten since, is still inside the outer one.
    """
    late = Cancelable()

    async def work(left: anyio.Event) -> None:
        await left.wait()
        gc.collect()
        async with late:
            await sleep_forever()

    with pytest.raises(ManualCancelation):
        async with Cancelable(name="outer") as outer, create_task_group() as group:
            left = anyio.Event()
            async with Cancelable(name="inner"):
                group.start_soon(work, left)
                await wait_all_tasks_blocked()
            await checkpoint()
            left.set()
            await wait_all_tasks_blocked()
            outer.cancel()

    assert late.cancelation is not None
    assert (late.cancelation.reason, late.cancelation.by) == (CancelationReason.PARENT, "outer")


async def test_an_outer_block_that_another_thread_leaves_meanwhile_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    A loop in a worker thread knows the blocks around that, which others leave when they like.
    """

    def is_left_just_then(block: Block) -> None:
        block._closed, block._owner = block.now(), None  # as its own thread does

    async with Cancelable(name="outer") as outer, Cancelable() as inner:
        outer.cancel()
        block = outer._block
        assert block is not None
        assert inner._block is not None
        before = inner._block.outside_cancelation()
        with monkeypatch.context() as patched:
            patched.setattr(Block, "notice_deadline", is_left_just_then)
            after = inner._block.outside_cancelation()
        block._closed, block._owner = None, outer

    assert (before.reason, before.by) == (CancelationReason.PARENT, "outer")
    assert after.reason is CancelationReason.EXTERNAL


async def test_a_shielded_scope_holds_the_cancelation_back() -> None:
    """
    AnyIO's shields work in a block as anywhere else.
    """
    passed = False

    with pytest.raises(ManualCancelation):
        async with Cancelable() as operation:
            operation.cancel()
            with CancelScope(shield=True):
                await sleep(1)
                passed = True
            await checkpoint()

    assert passed


async def test_swallowing_the_cancelation_does_not_help() -> None:
    """
    A cancelled block is cancelled at every checkpoint, not just at the first.
    """
    attempts = 0

    with pytest.raises(ManualCancelation):
        async with Cancelable() as operation:
            operation.cancel()
            for _ in range(3):
                try:
                    await checkpoint()
                except get_cancelled_exc_class():
                    attempts += 1
            await checkpoint()

    assert attempts == 3


LEVELS = st.lists(st.sampled_from(["operation", "quiet operation", "scope"]), min_size=1, max_size=5)


@given(levels=LEVELS, timeouts=st.lists(st.integers(1, 4), min_size=5, max_size=5))
async def test_of_any_nesting_the_outermost_of_the_first_due_catches(
    levels: list[str], timeouts: list[int]
) -> None:
    """
    However operations and scopes are nested, the outermost of those whose deadline comes first catches.
    """
    caught: list[int] = []
    operations: dict[int, Cancelable] = {}

    async def enter(depth: int) -> None:
        if depth == len(levels):
            await sleep_forever()
        elif levels[depth] == "scope":
            with move_on_after(timeouts[depth]) as scope:
                await enter(depth + 1)
            if scope.cancelled_caught:
                caught.append(depth)
        else:
            operations[depth] = Cancelable(
                timeout=timeouts[depth], name=str(depth), raise_on_cancel=levels[depth] == "operation"
            )
            async with operations[depth]:
                await enter(depth + 1)

    due = min(timeouts[: len(levels)])
    expected = timeouts.index(due)
    start = anyio.current_time()
    if levels[expected] == "operation":
        with pytest.raises(TimeoutCancelation, match=f"^{expected}: "):
            await enter(0)
    else:
        await enter(0)

    assert anyio.current_time() - start == pytest.approx(due)
    assert caught == ([expected] if levels[expected] == "scope" else [])

    ended = {depth for depth, it in operations.items() if it.status is OperationStatus.CANCELLED}
    assert ended == {depth for depth in operations if depth >= expected}


# --- asyncio's own means


@pytest.mark.only_on("asyncio")
async def test_a_native_cancel_passes_untouched() -> None:
    """
    ``Task.cancel()`` is a cancelation from outside.
    """
    operation = Cancelable(raise_on_cancel=False)
    task = asyncio.ensure_future(sleep_in(operation))
    await wait_all_tasks_blocked()

    task.cancel("native")
    with pytest.raises(asyncio.CancelledError):
        await task

    assert task.cancelled()
    assert operation.cancelation == EXTERNAL


@needs_uncancel
@pytest.mark.only_on("asyncio", "uvloop")
@pytest.mark.real_time
@pytest.mark.parametrize("raise_on_cancel", [True, False])
@pytest.mark.parametrize("how", ["ours, native", "native, ours", "timeout, native"])
async def test_a_native_cancel_in_the_same_tick_wins(how: str, raise_on_cancel: bool) -> None:
    """
    Whoever called ``Task.cancel()`` sees the task end cancelled, though asyncio makes one exception of two.
    """
    for _ in range(20):
        operation = Cancelable(raise_on_cancel=raise_on_cancel, timeout=HOUR)
        task = asyncio.ensure_future(sleep_in(operation))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if how == "native, ours":
            task.cancel()
        operation.cancel()
        if how != "native, ours":
            task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task

        assert task.cancelled()
        assert operation.status is OperationStatus.CANCELLED


@needs_uncancel
@pytest.mark.only_on("asyncio")
async def test_a_native_cancel_while_the_block_unwinds_wins() -> None:
    """
    Also when the block is already on its way out.
    """
    unwinding = asyncio.Event()
    operation = Cancelable()

    async def work() -> None:
        async with operation:
            try:
                await sleep_forever()
            finally:
                with CancelScope(shield=True):
                    unwinding.set()
                    await sleep_forever()

    task = asyncio.ensure_future(work())
    await wait_all_tasks_blocked()
    operation.cancel()
    await unwinding.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    assert task.cancelled()


@pytest.mark.only_on("asyncio")
async def test_gather_in_a_block() -> None:
    """
    Tasks that asyncio runs for the block end with it.
    """
    ended: list[int] = []

    async def work(i: int) -> None:
        try:
            await asyncio.sleep(HOUR)
        finally:
            ended.append(i)

    with pytest.raises(TimeoutCancelation):
        async with Cancelable(timeout=1):
            await asyncio.gather(work(0), work(1))

    await wait_all_tasks_blocked()

    assert sorted(ended) == [0, 1]


@pytest.mark.only_on("asyncio")
async def test_gather_of_blocks() -> None:
    """
    Each result is its operation's own.
    """

    async def work(seconds: int) -> str:
        async with Cancelable(timeout=2):
            await asyncio.sleep(seconds)
        return "done"

    results = await asyncio.gather(work(1), work(3), return_exceptions=True)

    assert results[0] == "done"
    assert isinstance(results[1], TimeoutCancelation)


@pytest.mark.only_on("asyncio")
async def test_wait_for_around_a_block() -> None:
    """
    The oldest of asyncio's timeouts cancels natively.
    """
    operation = Cancelable()

    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(sleep_in(operation), 1)

    assert operation.cancelation == EXTERNAL


async def sleep_in(operation: Cancelable) -> None:
    """Enter the operation and stay there."""
    async with operation:
        await sleep_forever()


if sys.version_info >= (3, 11):

    @pytest.mark.only_on("asyncio")
    async def test_asyncio_timeout_around() -> None:
        """
        The shorter timeout outside raises its own error.
        """
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(1):
                async with Cancelable(timeout=2) as operation:
                    await sleep_forever()

        assert type(caught.value) is TimeoutError
        assert operation.cancelation == EXTERNAL
        assert_nothing_pending()

    @pytest.mark.only_on("asyncio")
    async def test_asyncio_timeout_around_that_is_longer() -> None:
        """
        The shorter timeout inside raises its own error.
        """
        with pytest.raises(TimeoutCancelation):
            async with asyncio.timeout(2):
                async with Cancelable(timeout=1):
                    await sleep_forever()

        assert_nothing_pending()

    @pytest.mark.only_on("asyncio")
    async def test_asyncio_timeout_inside() -> None:
        """
        Its error is an ordinary one to the operation.
        """
        with pytest.raises(TimeoutError) as caught:
            async with Cancelable(timeout=2) as operation:
                async with asyncio.timeout(1):
                    await sleep_forever()

        assert type(caught.value) is TimeoutError
        assert operation.status is OperationStatus.FAILED
        assert_nothing_pending()

    @pytest.mark.only_on("asyncio")
    async def test_asyncio_timeout_inside_that_is_longer() -> None:
        """
        A longer timeout inside changes nothing.
        """
        with pytest.raises(TimeoutCancelation):
            async with Cancelable(timeout=1):
                async with asyncio.timeout(2):
                    await sleep_forever()

        assert_nothing_pending()

    @pytest.mark.only_on("asyncio")
    @pytest.mark.parametrize("raise_on_cancel", [True, False])
    async def test_asyncio_timeout_around_that_is_due_at_the_same_moment(raise_on_cancel: bool) -> None:
        """
        Both deadlines in one tick: the outer one is native, so it wins.
        """
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout_at(10):
                async with Cancelable(
                    timeout=10 - asyncio.get_running_loop().time(), raise_on_cancel=raise_on_cancel
                ):
                    await sleep_forever()

        assert type(caught.value) is TimeoutError
        assert_nothing_pending()

    @pytest.mark.only_on("asyncio")
    async def test_an_asyncio_task_group_in_a_block() -> None:
        """
        All its tasks end with the block, and one error says why.
        """
        ended: list[int] = []

        async def work(i: int) -> None:
            try:
                await asyncio.sleep(HOUR)
            finally:
                ended.append(i)

        with pytest.raises(TimeoutCancelation):
            async with Cancelable(timeout=1), asyncio.TaskGroup() as group:
                group.create_task(work(0))
                group.create_task(work(1))

        assert sorted(ended) == [0, 1]
        assert_nothing_pending()

    @pytest.mark.only_on("asyncio")
    async def test_an_asyncio_task_group_in_a_block_fails_while_it_is_cancelled() -> None:
        """
        Errors of its tasks go on, and the cancelation does not.
        """

        async def fail() -> None:
            try:
                await asyncio.sleep(HOUR)
            finally:
                raise ZeroDivisionError

        with pytest.RaisesGroup(ZeroDivisionError):
            async with Cancelable(timeout=1) as operation, asyncio.TaskGroup() as group:
                group.create_task(fail())
                group.create_task(asyncio.sleep(HOUR))

        assert operation.status is OperationStatus.FAILED
        assert_nothing_pending()

        await checkpoint()

    @pytest.mark.only_on("asyncio")
    async def test_a_failing_asyncio_task_group_around_blocks() -> None:
        """
        It cancels its tasks natively, their operations included.
        """
        operation = Cancelable(raise_on_cancel=False)

        async def fail() -> None:
            await wait_all_tasks_blocked()
            raise ZeroDivisionError

        with pytest.RaisesGroup(ZeroDivisionError):
            async with asyncio.TaskGroup() as group:
                group.create_task(sleep_in(operation))
                group.create_task(fail())

        assert operation.status is OperationStatus.CANCELLED
        assert operation.cancelation == EXTERNAL

    @pytest.mark.only_on("asyncio")
    async def test_nothing_is_counted_against_the_task_after_the_block() -> None:
        """
        Whoever looks at ``Task.cancelling()`` after the block, such as asyncio's timeouts, sees none of ours.
        """
        for shielded in (False, True):
            async with Cancelable(raise_on_cancel=False) as operation:
                operation.cancel()
                try:
                    await sleep_forever()
                finally:
                    if shielded:
                        with CancelScope(shield=True):
                            await sleep(1)
                    await cancel_shielded_checkpoint()

            assert_nothing_pending()

        async with asyncio.timeout(1):
            await checkpoint()

    def assert_nothing_pending() -> None:
        task = asyncio.current_task()

        assert task is not None
        assert task.cancelling() == 0


# --- Trio's own means


@pytest.mark.only_on("trio")
async def test_a_trio_scope_around() -> None:
    """
    Trio's scopes are outer scopes like AnyIO's.
    """
    import trio

    with trio.move_on_after(1) as scope:
        async with Cancelable(timeout=2) as operation:
            await trio.sleep_forever()

    assert scope.cancelled_caught
    assert operation.cancelation == EXTERNAL


@pytest.mark.only_on("trio")
@pytest.mark.parametrize("raise_on_cancel", [True, False])
async def test_a_trio_scope_around_wins_in_the_same_tick(raise_on_cancel: bool) -> None:
    """
    The outer scope comes first, whoever was cancelled first.
    """
    import trio

    with trio.CancelScope() as scope:
        async with Cancelable(raise_on_cancel=raise_on_cancel) as operation:
            operation.cancel()
            scope.cancel()
            await trio.sleep_forever()
        pytest.fail("the cancelation was swallowed")

    assert scope.cancelled_caught


@pytest.mark.only_on("trio")
async def test_a_trio_scope_inside() -> None:
    """
    It catches its own, and lets the operation's through.
    """
    import trio

    with pytest.raises(ManualCancelation):
        async with Cancelable() as operation:
            with trio.move_on_after(1) as scope:
                await trio.sleep_forever()
            with trio.CancelScope():
                operation.cancel()
                await trio.lowlevel.checkpoint()

    assert scope.cancelled_caught


@pytest.mark.only_on("trio")
async def test_a_nursery_in_a_block() -> None:
    """
    All its tasks end with the block, and one error says why.
    """
    import trio

    with pytest.raises(TimeoutCancelation):
        async with Cancelable(timeout=1), trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(trio.sleep_forever)


@pytest.mark.only_on("trio")
async def test_a_nursery_in_a_block_that_is_cancelled_from_outside() -> None:
    """
    The operation is cancelled, not failed, though a nursery may make a group of several cancelations.
    """
    import trio

    with trio.move_on_after(1) as scope:
        async with Cancelable() as operation, trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep_forever()

    assert scope.cancelled_caught
    assert operation.status is OperationStatus.CANCELLED
    assert operation.cancelation == EXTERNAL


@pytest.mark.only_on("trio")
async def test_a_nursery_in_a_block_fails_while_it_is_cancelled() -> None:
    """
    Errors of its tasks go on, and the cancelation does not.
    """
    import trio

    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ZeroDivisionError

    with pytest.RaisesGroup(ZeroDivisionError):
        async with Cancelable(timeout=1), trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            nursery.start_soon(trio.sleep_forever)


@pytest.mark.only_on("trio")
async def test_a_failing_nursery_around_blocks() -> None:
    """
    It cancels the operations in it from outside.
    """
    import trio

    operation = Cancelable(raise_on_cancel=False)

    async def fail() -> None:
        await trio.testing.wait_all_tasks_blocked()
        raise ZeroDivisionError

    with pytest.RaisesGroup(ZeroDivisionError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sleep_in, operation)
            nursery.start_soon(fail)

    assert operation.cancelation == EXTERNAL


@contextmanager
def noting(seen: list[BaseException]) -> Iterator[None]:
    """Note the exception that passes here."""
    try:
        yield
    except BaseException as error:
        seen.append(error)
        raise


def in_thread(function: Callable[[], object]) -> None:
    """Run *function* in a thread, while this one does nothing else."""
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()
