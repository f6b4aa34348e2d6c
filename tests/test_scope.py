"""Operations: timeouts, tokens, parents, and what can be asked of them."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from contextlib import suppress
from contextvars import copy_context
from datetime import timedelta
from math import inf, nan
from typing import Any

import anyio
import pytest
from anyio import CancelScope, create_task_group, fail_after, sleep, sleep_forever, wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from hother.cancelable import (
    Cancelable,
    Cancelation,
    CancelationError,
    CancelationReason,
    CancelationToken,
    ConditionCancelation,
    DisconnectCancelation,
    ManualCancelation,
    OperationStatus,
    ParentCancelation,
    ShutdownCancelation,
    TimeoutCancelation,
    current_operation,
)

HOUR = 3600.0


# --- Timeouts


@pytest.mark.parametrize("timeout", [HOUR, 3600, timedelta(hours=1)])
async def test_a_timeout_ends_the_block(timeout: Any) -> None:
    """
    After an hour, in whatever way that is said, the block is interrupted.
    """
    start = anyio.current_time()

    with pytest.raises(TimeoutCancelation, match="timed out after 3600 seconds") as caught:
        async with Cancelable(timeout=timeout) as operation:
            await sleep_forever()

    assert anyio.current_time() - start == HOUR
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.reason is CancelationReason.TIMEOUT
    assert operation.cancelation is caught.value.cancelation


async def test_a_timeout_counts_from_entering_the_block() -> None:
    """
    An operation may be made long before it is used.
    """
    operation = Cancelable.with_timeout(2)
    await sleep(HOUR)
    start = anyio.current_time()

    with pytest.raises(TimeoutCancelation):
        async with operation:
            await sleep_forever()

    assert anyio.current_time() - start == 2


async def test_a_block_that_is_in_time_is_not_touched() -> None:
    """
    The deadline of a block has no meaning after the block.
    """
    async with Cancelable(timeout=2) as operation:
        await sleep(1)
    await sleep(HOUR)

    assert operation.status is OperationStatus.COMPLETED
    assert not operation.is_cancelled


async def test_a_record_without_a_reason_ends_the_block() -> None:
    """
    Only ``cancel()`` looks at the reason; a cancel is not to fail half way for the sake of its words.
    """
    token = CancelationToken()
    unknown: Any = None

    with pytest.raises(CancelationError, match="by a stranger"):
        async with Cancelable(tokens=[token]):
            token.cancel_with(Cancelation(unknown, "by a stranger"))
            await sleep_forever()


@pytest.mark.parametrize("timeout", [0, 0.0, timedelta(0)])
async def test_no_time_at_all_is_over_at_the_first_checkpoint(timeout: Any) -> None:
    """
    Zero is a timeout like others, and not the absence of one.
    """
    with pytest.raises(TimeoutCancelation):
        async with Cancelable(timeout=timeout):
            await checkpoint()
            pytest.fail("the checkpoint did not raise")

    async with Cancelable(timeout=timeout) as operation:
        pass

    assert operation.status is OperationStatus.COMPLETED


@pytest.mark.parametrize("timeout", [None, inf])
async def test_no_timeout_never_comes(timeout: float | None) -> None:
    """
    For ever can be said in two ways.
    """
    async with Cancelable(timeout=timeout) as operation:
        await sleep(1000 * HOUR)

        assert operation.deadline == inf
        assert operation.remaining() is None

        operation.check()


@pytest.mark.parametrize("timeout", [-1, -0.001, nan, -inf, timedelta(microseconds=-1)])
def test_an_impossible_timeout_is_refused(timeout: Any) -> None:
    """
    Less than nothing, and what is not a number, is found when the operation is made.
    """
    with pytest.raises(ValueError, match="timeout must not be negative or NaN, got"):
        Cancelable(timeout=timeout)

    with pytest.raises(ValueError, match="timeout must not be negative or NaN, got"):
        Cancelable.with_timeout(timeout)


@pytest.mark.parametrize("timeout", ["1", True, False, b"1", [1], 1j])
def test_a_timeout_must_be_a_time(timeout: Any) -> None:
    """
    What a query string or a configuration file may bring along does not pass for seconds.
    """
    with pytest.raises(TypeError, match="timeout must be a number of seconds, a timedelta or None, got"):
        Cancelable(timeout=timeout)


async def test_the_time_left_can_be_asked_for() -> None:
    """
    Before the block it is the whole timeout; then it shrinks, and never below zero.
    """
    operation = Cancelable(timeout=10)

    assert operation.remaining() == 10
    assert operation.deadline == inf

    with pytest.raises(TimeoutCancelation):
        async with operation:
            assert operation.deadline == anyio.current_time() + 10
            assert operation.remaining() == 10

            await sleep(4)

            assert operation.remaining() == 6

            with CancelScope(shield=True):
                await sleep(8)

            assert operation.remaining() == 0

            await checkpoint()


def test_the_time_left_of_no_timeout_is_none() -> None:
    """
    Also before the block there is none, however it was said.
    """
    assert Cancelable().remaining() is None
    assert Cancelable(timeout=inf).remaining() is None


async def test_the_reason_is_known_while_the_block_unwinds() -> None:
    """
    Cleanup code can ask why it runs, whatever the reason is.
    """
    for timeout, cancel, reason in (
        (None, True, CancelationReason.MANUAL),
        (1, False, CancelationReason.TIMEOUT),
    ):
        with pytest.raises(CancelationError):
            async with Cancelable(timeout=timeout) as operation:
                if cancel:
                    operation.cancel()
                try:
                    await sleep_forever()
                finally:
                    assert operation.is_cancelled
                    assert operation.cancelation is not None
                    assert operation.cancelation.reason is reason


async def test_a_cancel_in_the_cleanup_after_a_timeout_is_too_late() -> None:
    """
    The deadline was first, and the first reason stays.
    """
    with pytest.raises(TimeoutCancelation):
        async with Cancelable(timeout=1) as operation:
            try:
                await sleep_forever()
            finally:
                operation.cancel()


async def test_a_waiter_for_the_token_hears_of_the_timeout_when_the_block_ends() -> None:
    """
    Whoever waits for an operation's token is not forgotten when its deadline passes.
    """
    heard: list[Cancelation] = []
    operation = Cancelable(timeout=1)

    async def listen() -> None:
        heard.append(await operation.token.wait())

    async with create_task_group() as group:
        group.start_soon(listen)
        with pytest.raises(TimeoutCancelation):
            async with operation:
                await sleep_forever()

    assert heard == [operation.cancelation]


# --- Tokens


async def test_a_token_ends_the_block_for_its_own_reason() -> None:
    """
    The record on the token is the record on the operation and on its error.
    """
    tokens = [CancelationToken() for _ in range(3)]

    with pytest.raises(ShutdownCancelation, match="bye") as caught:
        async with Cancelable.with_token(*tokens) as operation:
            tokens[1].cancel(CancelationReason.SHUTDOWN, "bye")
            await sleep_forever()

    assert caught.value.cancelation is tokens[1].cancelation
    assert operation.cancelation is tokens[1].cancelation
    assert [token.statistics().callbacks for token in tokens] == [0, 0, 0]
    assert not tokens[0].is_cancelled


async def test_a_token_that_was_cancelled_before_ends_the_block_at_its_first_checkpoint() -> None:
    """
    The block is entered, so that what it must clean up is cleaned up.
    """
    token = CancelationToken()
    token.cancel(CancelationReason.DISCONNECT)
    reached = []

    with pytest.raises(DisconnectCancelation):
        async with Cancelable.with_token(token):
            reached.append("block")
            await checkpoint()
            reached.append("after the checkpoint")

    assert reached == ["block"]


async def test_an_operation_may_be_cancelled_before_it_is_entered() -> None:
    """
    The same holds for its own ``cancel()``.
    """
    operation = Cancelable()

    assert operation.cancel(message="never mind", by="alice")
    assert not operation.cancel()

    with pytest.raises(ManualCancelation, match=r"never mind \(by alice\)"):
        async with operation:
            await checkpoint()
            pytest.fail("the checkpoint did not raise")


async def test_cancelling_an_operation_leaves_its_tokens_alone() -> None:
    """
    Others may use them, too.
    """
    token = CancelationToken()

    with pytest.raises(ManualCancelation):
        async with Cancelable.with_token(token) as operation:
            operation.cancel()
            await sleep_forever()

    assert not token.is_cancelled


async def test_cancelling_a_finished_operation_does_nothing_to_anybody() -> None:
    """
    A late cancel is recorded, and that is all.
    """
    async with Cancelable() as operation:
        pass

    operation.cancel()
    await checkpoint()

    assert operation.status is OperationStatus.COMPLETED


async def test_one_token_ends_many_operations() -> None:
    """
    A fan-out: each of a hundred blocks raises its own error, with the one record.
    """
    token = CancelationToken()
    errors: list[CancelationError] = []

    async def work() -> None:
        try:
            async with Cancelable.with_token(token):
                await sleep_forever()
        except CancelationError as error:
            errors.append(error)

    async with create_task_group() as group:
        for _ in range(100):
            group.start_soon(work)
        await wait_all_tasks_blocked()

        assert token.statistics().callbacks == 100

        token.cancel()

    assert len(errors) == len({id(error) for error in errors}) == 100
    assert {id(error.cancelation) for error in errors} == {id(token.cancelation)}
    assert token.statistics().callbacks == 0


async def test_an_operation_that_listens_to_its_own_token_is_no_ring() -> None:
    """
    Odd, but harmless.
    """
    token = CancelationToken()

    with pytest.raises(ManualCancelation):
        async with Cancelable.with_token(token, token, token.child()):
            token.cancel()
            await sleep_forever()

    assert token.statistics().callbacks == 0


# --- Wrong arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokens": ["token"]}, "tokens must be CancelationTokens, got 'token'"),
        ({"parent": CancelationToken()}, "parent must be a Cancelable, got <CancelationToken"),
        ({"timeouts": 1, "title": "x"}, "unexpected arguments: timeouts, title"),
    ],
)
def test_a_wrong_argument_is_refused(arguments: dict[str, Any], message: str) -> None:
    """
    A mistake is found where it is made, and named.
    """
    with pytest.raises(TypeError, match=message):
        Cancelable(**arguments)


def test_everything_is_passed_by_keyword() -> None:
    """
    A timeout in the place of a token, or the other way round, cannot happen.
    """
    with pytest.raises(TypeError):
        Cancelable(5)  # type: ignore[call-arg]


def test_tokens_may_come_from_any_iterable() -> None:
    """
    A generator will do; it is read once.
    """
    token = CancelationToken()
    token.cancel()

    operation = Cancelable(tokens=(t for t in [token]))

    for _ in range(2):
        with pytest.raises(ManualCancelation):
            operation.check()


# --- Parents


async def test_cancelling_the_parent_inside_its_own_block_reaches_all_children() -> None:
    """
    Children in other tasks end with it, and so do theirs.
    """
    errors: dict[str, ParentCancelation] = {}

    async def work(parent: Cancelable, name: str, depth: int = 0) -> None:
        try:
            async with Cancelable(parent=parent, name=name) as operation:
                if depth:
                    async with create_task_group() as group:
                        group.start_soon(work, operation, name + "'s child", depth - 1)
                        await sleep_forever()
                await sleep_forever()
        except ParentCancelation as error:
            errors[name] = error

    async with create_task_group() as group:
        with pytest.raises(ManualCancelation, match="enough"):
            async with Cancelable(name="boss") as boss:
                for name in ("first", "second"):
                    group.start_soon(work, boss, name, 1)
                await wait_all_tasks_blocked()
                boss.cancel(message="enough")
                await sleep_forever()

    assert set(errors) >= {"first", "second"}
    for error in errors.values():
        assert error.cancelation.by == "boss"
        assert error.cancelation.cause is boss.cancelation
        assert str(error.cancelation) == "the parent operation was cancelled: enough (by boss)"
    assert boss.token.statistics().callbacks == 0


async def test_the_parents_timeout_reaches_children_in_other_tasks_at_once() -> None:
    """
    Also if the parent itself cannot react just then.
    """
    ended: list[tuple[float, BaseException]] = []

    async def work(parent: Cancelable) -> None:
        try:
            async with Cancelable(parent=parent):
                await sleep_forever()
        except ParentCancelation as error:
            ended.append((anyio.current_time(), error))

    start = anyio.current_time()
    async with create_task_group() as group:
        with pytest.raises(TimeoutCancelation) as caught:
            async with Cancelable(timeout=5, name="boss") as boss:
                await sleep(1)
                group.start_soon(work, boss)
                with CancelScope(shield=True):
                    await sleep(HOUR)
                await checkpoint()

    ((at, error),) = ended
    assert at - start == 5
    assert isinstance(error, ParentCancelation)
    assert error.cancelation.by == "boss"
    assert error.cancelation.cause == caught.value.cancelation


async def test_a_childs_own_timeout_counts_if_it_is_shorter() -> None:
    """
    The deadline of a child is the earliest of its own and its parents'.
    """
    async with Cancelable(timeout=5) as parent:
        with pytest.raises(TimeoutCancelation):
            async with Cancelable(timeout=1, parent=parent) as child:
                assert child.remaining() == 1

                await sleep_forever()

        async with Cancelable(timeout=HOUR, parent=parent) as child:
            assert child.remaining() == 4
            assert child.deadline == parent.deadline


async def test_a_parent_that_is_not_entered_still_cancels() -> None:
    """
    It may serve as a switch for all its children.
    """
    parent = Cancelable(name="switch")

    async def work() -> None:
        with pytest.raises(ParentCancelation):
            async with Cancelable(parent=parent):
                await sleep_forever()

    async with create_task_group() as group:
        group.start_soon(work)
        group.start_soon(work)
        await wait_all_tasks_blocked()
        parent.cancel()

    assert parent.token.statistics().callbacks == 0


async def test_a_parent_that_is_entered_after_its_child_passes_its_timeout_on() -> None:
    """
    The order of entering makes no difference to whether the child ends.
    """
    parent = Cancelable(timeout=1)

    async def work() -> None:
        with fail_after(HOUR), pytest.raises(ParentCancelation):
            async with Cancelable(parent=parent):
                await sleep_forever()

    async with create_task_group() as group:
        group.start_soon(work)
        await wait_all_tasks_blocked()
        with pytest.raises(TimeoutCancelation):
            async with parent:
                await sleep_forever()


async def test_a_parent_that_was_cancelled_before_ends_the_child_at_its_first_checkpoint() -> None:
    """
    As with tokens.
    """
    parent = Cancelable()
    parent.cancel(CancelationReason.SHUTDOWN)

    with pytest.raises(ParentCancelation) as caught:
        async with Cancelable(parent=parent):
            await checkpoint()
            pytest.fail("the checkpoint did not raise")

    assert caught.value.cancelation.cause is parent.cancelation


async def test_a_parent_that_is_cancelled_from_outside_takes_its_children_along() -> None:
    """
    They are told the cause.
    """
    parent = Cancelable()
    causes: list[Cancelation | None] = []

    async def work() -> None:
        try:
            async with Cancelable(parent=parent):
                await sleep_forever()
        except ParentCancelation as error:
            causes.append(error.cancelation.cause)

    async with create_task_group() as group:
        with CancelScope() as scope:
            async with parent:
                group.start_soon(work)
                await wait_all_tasks_blocked()
                scope.cancel()
                await sleep_forever()

    assert causes == [Cancelation(CancelationReason.EXTERNAL)]


async def test_a_child_leaves_its_parent_alone() -> None:
    """
    What happens to one child is no concern of the others.
    """
    async with Cancelable() as parent:
        with pytest.raises(ManualCancelation):
            async with Cancelable(parent=parent) as child:
                child.cancel()
                await sleep_forever()
        await checkpoint()

    assert not parent.is_cancelled
    assert parent.token.statistics().callbacks == 0


async def test_a_parent_that_completes_leaves_its_children_running() -> None:
    """
    Ending well is no cancelation.
    """
    ended: list[str] = []

    async def work(parent: Cancelable) -> None:
        async with Cancelable(parent=parent):
            await sleep(HOUR)
        ended.append("child")

    async with create_task_group() as group:
        async with Cancelable() as parent:
            group.start_soon(work, parent)
            await wait_all_tasks_blocked()
        ended.append("parent")

    assert ended == ["parent", "child"]


@pytest.mark.real_time
async def test_a_thread_cancels_a_parent_of_many() -> None:
    """
    Children in many tasks end, and one error tells of each.
    """
    parent = Cancelable()
    errors: list[ParentCancelation] = []

    async def work() -> None:
        try:
            async with Cancelable(parent=parent):
                await sleep_forever()
        except ParentCancelation as error:
            errors.append(error)

    with fail_after(5):
        async with create_task_group() as group:
            for _ in range(50):
                group.start_soon(work)
            await wait_all_tasks_blocked()
            threading.Thread(target=parent.cancel).start()

    assert len(errors) == 50


# --- Combinations


async def test_a_combination_ends_with_the_first_of_its_parts() -> None:
    """
    Tokens, parents and operations themselves: any of them is enough.
    """
    for which, error in enumerate((ConditionCancelation, ParentCancelation, ManualCancelation)):
        token, parent = CancelationToken(), Cancelable()
        parts = Cancelable.with_token(token), Cancelable(parent=parent), Cancelable()
        with pytest.raises(error):
            async with parts[0].combine(*parts[1:]):
                if which == 0:
                    token.cancel(CancelationReason.CONDITION)
                else:
                    (parent, parts[2])[which - 1].cancel()
                await sleep_forever()

        assert token.statistics().callbacks == parent.token.statistics().callbacks == 0
        assert [part.token.statistics().callbacks for part in parts] == [0, 0, 0]
        assert [part.status for part in parts] == [OperationStatus.PENDING] * 3


async def test_a_combination_has_the_shortest_timeout() -> None:
    """
    In any order, and with parts that have none.
    """
    for timeouts in ((3, 1, None), (None, 3, 1), (1, inf, 3)):
        first, *others = (Cancelable(timeout=timeout) for timeout in timeouts)
        start = anyio.current_time()
        with pytest.raises(TimeoutCancelation):
            async with first.combine(*others):
                await sleep_forever()

        assert anyio.current_time() - start == 1


async def test_a_combination_takes_over_what_its_parts_were_made_with() -> None:
    """
    Callbacks and metadata of all; name and the way to end of the first; an id of its own.
    """
    calls: list[str] = []
    first = Cancelable(name="a", operation_id="1", metadata={"x": 1, "y": 1}, raise_on_cancel=False)
    first.on_cancel(lambda _: calls.append("first"))
    second = Cancelable(name="b", operation_id="2", metadata={"y": 2, "z": 2})
    second.on_cancel(lambda _: calls.append("second"))

    combined = first.combine(second)
    async with combined:
        combined.cancel()
        await sleep_forever()

    assert combined.name == "a"
    assert combined.id not in {part.id for part in (first, second)}
    assert combined.metadata == {"x": 1, "y": 1, "z": 2}
    assert calls == ["first", "second"]
    assert not first.is_cancelled
    assert not second.is_cancelled


def test_operations_combine_with_operations_only() -> None:
    """
    A token in the place of an operation is a mistake, and named.
    """
    with pytest.raises(TypeError, match="takes Cancelables, got <CancelationToken"):
        Cancelable().combine(CancelationToken())  # type: ignore[arg-type]


async def test_a_follower_ends_for_the_same_reason() -> None:
    """
    Unlike a child, it is not told of a parent.
    """
    for which in ("token", "operation"):
        token = CancelationToken()
        leader = Cancelable.with_token(token, name="leader")
        with pytest.raises(DisconnectCancelation) as caught:
            async with leader.follow():
                (token if which == "token" else leader).cancel(CancelationReason.DISCONNECT)
                await sleep_forever()

        assert str(caught.value) == "leader: the client disconnected"


async def test_a_follower_has_the_time_that_its_leader_has_left() -> None:
    """
    It ends when its leader's time is up.
    """
    async with Cancelable(timeout=10, raise_on_cancel=False) as leader:
        await sleep(4)
        start = anyio.current_time()
        with pytest.raises(TimeoutCancelation):
            with CancelScope(shield=True):
                async with leader.follow():
                    await sleep_forever()

        assert anyio.current_time() - start == 6


async def test_a_follower_leaves_its_leader_alone() -> None:
    """
    It is cancelled with its leader, not the other way round.
    """
    leader = Cancelable()

    with pytest.raises(ManualCancelation):
        async with leader.follow() as follower:
            follower.cancel()
            await sleep_forever()

    assert not leader.is_cancelled
    assert leader.token.statistics().callbacks == 0


async def test_a_follower_of_a_child_that_waits_to_be_entered_hears_of_its_parent() -> None:
    """
    The leader need not be entered for that.
    """
    parent = Cancelable()

    with fail_after(HOUR), pytest.raises(CancelationError):
        async with Cancelable(parent=parent).follow():
            parent.cancel()
            await sleep_forever()


# --- Asking


async def test_check_raises_once_the_operation_should_stop() -> None:
    """
    Its error carries a snapshot of the operation.
    """
    with pytest.raises(ManualCancelation) as caught:
        async with Cancelable(name="busy") as operation:
            operation.check()
            operation.cancel()
            operation.check()

    assert caught.value.context is not None
    assert caught.value.context.name == "busy"
    assert caught.value.context.status is OperationStatus.RUNNING


async def test_check_knows_the_deadline() -> None:
    """
    A block that never waits can ask whether its time is up.
    """
    with pytest.raises(TimeoutCancelation):
        async with Cancelable(timeout=1) as operation:
            with CancelScope(shield=True):
                await sleep(2)
            operation.check()
            pytest.fail("check() did not raise")

    assert operation.status is OperationStatus.CANCELLED
    assert operation.cancelation is not None
    assert operation.cancelation.reason is CancelationReason.TIMEOUT


def test_check_before_the_block() -> None:
    """
    An operation that will be interrupted at once can be asked before it is entered.
    """
    token, parent = CancelationToken(), Cancelable()
    token.cancel()
    parent.cancel()

    with pytest.raises(ManualCancelation):
        Cancelable.with_token(token).check()

    with pytest.raises(ParentCancelation):
        Cancelable(parent=parent).check()


async def test_check_after_the_block() -> None:
    """
    What has ended well stays well, whatever the time.
    """
    async with Cancelable(timeout=1) as operation:
        pass
    await sleep(2)

    operation.check()


async def test_check_raises_its_own_error_and_not_that_of_a_callback() -> None:
    """
    Who asks whether to stop gets the answer, also if it sets off a broken callback.
    """
    with pytest.raises(TimeoutCancelation):
        async with Cancelable(timeout=1) as operation:
            operation.token.add_callback(lambda _: 1 / 0)
            with CancelScope(shield=True):
                await sleep(2)
            operation.check()


@pytest.mark.real_time
async def test_check_in_a_worker_thread() -> None:
    """
    A thread that was started in the block finds the operation, asks it, and ends the block.
    """
    running = threading.Event()

    def work() -> None:
        operation = current_operation()
        assert operation is not None
        while True:
            running.set()
            operation.check()

    async def cancel(operation: Cancelable) -> None:
        await anyio.to_thread.run_sync(running.wait)
        operation.cancel()

    async with create_task_group() as group:
        with pytest.raises(ManualCancelation):
            async with Cancelable() as operation:
                group.start_soon(cancel, operation)
                await anyio.to_thread.run_sync(work)

    assert operation.status is OperationStatus.CANCELLED


@pytest.mark.real_time
async def test_check_in_a_thread_knows_the_deadline_while_the_loop_is_blocked() -> None:
    """
    The thread does not depend on a loop that has no time to notice.
    """
    errors: list[BaseException] = []

    def work(operation: Cancelable) -> None:
        try:
            while True:
                operation.check()
        except CancelationError as error:
            errors.append(error)

    with pytest.raises(TimeoutCancelation):
        async with Cancelable(timeout=0.02) as operation:
            thread = threading.Thread(target=work, args=(operation,))
            thread.start()
            thread.join(5)  # blocks the loop
            await checkpoint()

    assert [type(error) for error in errors] == [TimeoutCancelation]


async def test_an_id_is_random_unless_it_is_given() -> None:
    """
    Sixteen hexadecimal digits, the same for the whole life of the operation.
    """
    operation = Cancelable()
    first = operation.id
    async with operation:
        assert operation.id == first

    assert len(first) == 16
    assert int(first, 16) >= 0
    assert Cancelable().id != first
    assert Cancelable(operation_id="job 7").id == "job 7"


def test_the_repr_tells_name_and_state() -> None:
    """
    An operation in a log line can be recognised.
    """
    assert repr(Cancelable()).startswith("<Cancelable pending at 0x")
    assert repr(Cancelable(name="report")).startswith("<Cancelable 'report' pending at 0x")


# --- The current operation


async def test_the_current_operation_is_the_innermost() -> None:
    """
    Going in and out, it is always the one whose block this is.
    """
    assert current_operation() is None

    async with Cancelable() as outer:
        assert current_operation() is outer

        async with Cancelable() as inner:
            assert current_operation() is inner

        assert current_operation() is outer

    assert current_operation() is None


@pytest.mark.parametrize("how", ["error", "own", "quiet", "outside"])
async def test_the_current_operation_is_forgotten_however_the_block_ends(how: str) -> None:
    """
    What comes after the block is no part of it.
    """
    with CancelScope() as scope:
        try:
            async with Cancelable(raise_on_cancel=how != "quiet") as operation:
                if how == "error":
                    raise ZeroDivisionError
                (scope if how == "outside" else operation).cancel()
                await sleep_forever()
        except (CancelationError, ZeroDivisionError):
            pass
        finally:
            assert current_operation() is None

    assert current_operation() is None


async def test_tasks_of_the_block_see_its_operation() -> None:
    """
    Each task has its own innermost operation, and they do not disturb each other.
    """
    seen: list[bool] = []

    async def work(outer: Cancelable) -> None:
        seen.append(current_operation() is outer)
        async with Cancelable() as inner:
            await checkpoint()
            seen.append(current_operation() is inner)
        seen.append(current_operation() is outer)

    async with Cancelable() as outer, create_task_group() as group:
        group.start_soon(work, outer)
        group.start_soon(work, outer)
        await checkpoint()
        seen.append(current_operation() is outer)

    assert seen == [True] * 7


async def test_a_task_that_outlives_the_block_sees_the_operation_around_it() -> None:
    """
    A block that was left is nobody's current one, also where nobody was there to say so.
    """
    seen: list[str | None] = []

    async def work(left: anyio.Event) -> None:
        for wait in (None, left):
            if wait is not None:
                await wait.wait()
                gc.collect()  # of the inner operation nothing is left
            seen.append(name_of_current())

    async with Cancelable(name="outer"), create_task_group() as group:
        left = anyio.Event()
        async with Cancelable(name="inner"):
            group.start_soon(work, left)
            await wait_all_tasks_blocked()
        await checkpoint()
        left.set()

    assert seen == ["inner", "outer"]


def name_of_current() -> str | None:
    """Name the current operation, and do not hold on to it."""
    operation = current_operation()
    return operation.name if operation else None


@pytest.mark.real_time
async def test_worker_threads_see_the_operation() -> None:
    """
    AnyIO takes the context along.
    """
    async with Cancelable() as operation:
        assert await anyio.to_thread.run_sync(current_operation) is operation

    assert await anyio.to_thread.run_sync(current_operation) is None


def test_without_a_loop_there_is_no_current_operation() -> None:
    """
    Asking is allowed anywhere.
    """
    assert current_operation() is None


async def test_callbacks_at_the_end_no_longer_see_the_operation() -> None:
    """
    By then its block has been left, and the one around it is the current one.
    """
    seen: list[Cancelable | None] = []

    async with Cancelable() as outer:
        async with Cancelable().on_complete(lambda _: seen.append(current_operation())):
            pass

    assert seen == [outer]


if sys.version_info >= (3, 11):

    @pytest.mark.only_on("asyncio")
    async def test_asyncio_tasks_of_the_block_see_its_operation() -> None:
        """
        Tasks that asyncio starts inherit it, too, and forget it with the block.
        """
        import asyncio

        async def work() -> list[Cancelable | None]:
            first = current_operation()
            await sleep(2)
            return [first, current_operation()]

        async with Cancelable() as operation:
            task = asyncio.create_task(work())
            await sleep(1)

        assert await task == [operation, None]


async def test_a_block_that_is_left_in_another_context_leaves_that_context_alone() -> None:
    """
    As with a fixture of a test tool, which enters it in a context of its own.
    """
    async with Cancelable(name="outer") as outer:
        operation = Cancelable()
        entering = operation.__aenter__()
        with pytest.raises(StopIteration):
            copy_context().run(entering.send, None)

        assert current_operation() is outer

        await operation.__aexit__(None, None, None)

        assert current_operation() is outer
        assert operation.status is OperationStatus.COMPLETED


async def test_a_block_that_was_forgotten_is_stopped_like_any_that_is_open() -> None:
    """
    A fixture that has failed may forget what it entered: until that is left, the operation lives.
    """
    token = CancelationToken()
    operation = Cancelable.with_token(token)
    reference = weakref.ref(operation)
    await operation.__aenter__()
    block = operation._block
    assert block is not None
    del operation
    gc.collect()

    token.cancel()  # whoever does meets no error

    assert block._scope.cancel_called
    assert block.close(None) is None
    assert current_operation() is None
    assert reference() is None


async def test_a_block_that_is_just_being_left_is_of_no_thread_without_tasks() -> None:
    """
    It has no task any more by then, and neither has the thread: these are not the same.
    """
    async with Cancelable() as operation:
        block = operation._block
        assert block is not None
        assert block.is_of_this_task
        task, block._task = block._task, None  # as seen by a thread that found it open
        is_of_thread = await anyio.to_thread.run_sync(lambda: block.is_of_this_task)
        block._task = task

    assert not is_of_thread


@pytest.mark.parametrize("end", [None, "cancel", "fail"])
async def test_a_block_that_was_left_keeps_neither_its_operation_nor_its_task(end: str | None) -> None:
    """
    Both go without the garbage collector, however it was left, and whoever looks at the block.
    """
    blocks: list[Any] = []
    operations: list[weakref.ref[Cancelable]] = []

    async def work() -> None:
        with suppress(KeyError):
            async with Cancelable(raise_on_cancel=False) as operation:
                blocks.append(operation._block)
                operations.append(weakref.ref(operation))
                if end == "fail":
                    raise KeyError
                if end == "cancel":
                    operation.cancel()
                    await checkpoint()

    gc.disable()
    try:
        await work()
        await checkpoint()  # a cancelation stays in the task until then, with its frames

        assert operations[0]() is None
        assert blocks[0]._task is None
    finally:
        gc.enable()
