"""All causes of an operation, and the policy that may decline some of them."""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from anyio import create_task_group, sleep, sleep_forever, wait_all_tasks_blocked
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from hother.cancelable import (
    Cancelable,
    Cancelation,
    CancelationError,
    CancelationReason,
    CancelationToken,
    ConditionCancelation,
    ConditionSource,
    DisconnectCancelation,
    ManualCancelation,
    OperationStatus,
    ParentCancelation,
    ShutdownCancelation,
    SignalCancelation,
    TimeoutCancelation,
)

DISCONNECT, SHUTDOWN = CancelationReason.DISCONNECT, CancelationReason.SHUTDOWN
HOUR = 3600.0


def no_disconnect(cancelation: Cancelation) -> bool:
    return cancelation.root.reason is DISCONNECT


def reasons(causes: tuple[Cancelation, ...]) -> list[CancelationReason]:
    return [cause.reason for cause in causes]


# --- Causes


async def test_an_operation_keeps_all_its_causes_in_order() -> None:
    """
    Of its tokens, again and again, and of whoever cancels it; the first one decides.
    """
    first, second = CancelationToken(), CancelationToken()

    with pytest.raises(ShutdownCancelation):
        async with Cancelable.with_token(first, second.child()) as operation:
            assert not operation.causes

            second.cancel(SHUTDOWN)
            first.cancel(DISCONNECT)
            operation.cancel()
            first.cancel(CancelationReason.SIGNAL)

            assert reasons(operation.causes) == [
                SHUTDOWN,
                DISCONNECT,
                CancelationReason.MANUAL,
                CancelationReason.SIGNAL,
            ]
            assert operation.causes[0] is operation.cancelation is second.cancelation
            assert operation.causes[1] is first.cancelation

            await checkpoint()

    first.cancel(message="after the block")

    assert len(operation.causes) == 4


async def test_a_deadline_is_a_cause() -> None:
    """
    Whoever asks after it has passed finds it before what came later.
    """
    with pytest.raises(TimeoutCancelation):
        async with Cancelable(timeout=1) as operation:
            with anyio.CancelScope(shield=True):
                await sleep(2)
            operation.cancel()

            assert reasons(operation.causes) == [CancelationReason.TIMEOUT, CancelationReason.MANUAL]

            await checkpoint()


async def test_the_causes_of_a_parent_are_causes_of_its_children() -> None:
    """
    Each with what it follows from; and each once, on however many ways it comes.
    """
    boss = Cancelable(name="boss")
    child = Cancelable(parent=boss, raise_on_cancel=False)

    async with child:
        boss.cancel(SHUTDOWN)
        boss.cancel(DISCONNECT)
        boss.cancel(DISCONNECT)

        assert [cause.cause for cause in child.causes] == list(boss.causes)
        assert reasons(child.causes) == [CancelationReason.PARENT] * 3
        assert [cause.root.reason for cause in child.causes] == [SHUTDOWN, DISCONNECT, DISCONNECT]


def test_the_root_of_a_cancelation_is_where_it_began() -> None:
    """
    Of one without a cause, that is itself.
    """
    root = Cancelation(SHUTDOWN)
    middle = Cancelation(CancelationReason.ERROR, cause=root)

    assert root.root is root
    assert Cancelation(CancelationReason.PARENT, cause=middle).root is root


# --- Declining


async def test_a_cause_that_is_declined_does_not_cancel() -> None:
    """
    It is on record, and a later one of the same token still counts.
    """
    request = CancelationToken()

    with pytest.raises(ShutdownCancelation) as caught:
        async with Cancelable(tokens=[request], unless=no_disconnect) as operation:
            request.cancel(DISCONNECT)
            await sleep(1)
            operation.check()

            assert not operation.is_cancelled
            assert operation.causes == ()
            assert operation.declined == (request.cancelation,)

            request.cancel(SHUTDOWN)
            await checkpoint()
            pytest.fail("the checkpoint did not raise")

    assert reasons(operation.causes) == [SHUTDOWN]
    assert reasons(operation.declined) == [DISCONNECT]
    assert caught.value.cancelation is request.causes[1]


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_a_later_cause_counts_however_far_away_it_comes_from(number: int) -> None:
    """
    The token that was cancelled already still listens to those above it.
    """
    servers = [CancelationToken() for _ in range(3)]
    request = CancelationToken.any_of(*servers).child()

    async with Cancelable(tokens=[request.child()], unless=no_disconnect, raise_on_cancel=False) as operation:
        request.cancel(DISCONNECT)
        await checkpoint()
        servers[number].cancel(SHUTDOWN)
        await checkpoint()
        pytest.fail("the checkpoint did not raise")

    assert reasons(operation.causes) == [SHUTDOWN]


async def test_what_came_before_the_block_is_declined_as_well() -> None:
    """
    Also by ``check()``, which records nothing.
    """
    request = CancelationToken()
    request.cancel(DISCONNECT)
    operation = Cancelable(tokens=[request], unless=no_disconnect)

    operation.check()
    assert operation.declined == ()

    async with operation:
        await checkpoint()
        assert reasons(operation.declined) == [DISCONNECT]

    request.cancel(SHUTDOWN)

    with pytest.raises(ShutdownCancelation):
        Cancelable(tokens=[request], unless=no_disconnect).check()
    with pytest.raises(ShutdownCancelation):
        async with Cancelable(tokens=[request], unless=no_disconnect):
            await checkpoint()


async def test_a_source_can_be_declined() -> None:
    """
    The others are still waited for.
    """
    sources = [ConditionSource(lambda: True), ConditionSource(lambda: anyio.current_time() > start + 5)]
    start = anyio.current_time()

    def unless(cancelation: Cancelation) -> bool:
        return cancelation.by == repr(sources[0]) and anyio.current_time() < start + 1

    with pytest.raises(ConditionCancelation):
        async with Cancelable(sources=sources, unless=unless) as operation:
            await sleep_forever()

    assert anyio.current_time() - start == pytest.approx(5.1, abs=0.1)
    assert len(operation.declined) == len(operation.causes) == 1


async def test_a_parent_can_be_declined_and_so_can_its_deadline() -> None:
    """
    Whatever it was cancelled for, and whether it was before or is now.
    """
    for timeout in (1, None):
        async with create_task_group() as tasks:
            boss = Cancelable(timeout=timeout, raise_on_cancel=False)

            async def work(boss: Cancelable = boss) -> None:
                def unless(cause: Cancelation) -> bool:
                    return cause.reason is CancelationReason.PARENT

                async with Cancelable(parent=boss, unless=unless) as child:
                    assert child.remaining() is None
                    await sleep(5)
                    child.check()
                    assert [cause.root for cause in child.declined] == [boss.cancelation]

            tasks.start_soon(work)
            async with boss:
                await wait_all_tasks_blocked()
                if timeout is None:
                    boss.cancel()
                await sleep_forever()


async def test_a_parents_deadline_that_is_not_declined_is_heard_of() -> None:
    """
    Although the parent may decline nothing, and is not asked in the meantime.
    """
    start = anyio.current_time()
    async with create_task_group() as tasks:

        async def work(boss: Cancelable) -> None:
            with pytest.raises(ParentCancelation):
                async with Cancelable(parent=boss, unless=no_disconnect):
                    await sleep_forever()
            assert anyio.current_time() - start == 3

        async with Cancelable(timeout=3, raise_on_cancel=False) as boss:
            tasks.start_soon(work, boss)
            with anyio.CancelScope(shield=True):
                await sleep(10)


async def test_what_is_ones_own_is_never_declined() -> None:
    """
    ``cancel()``, the own token and the own deadline: there is always a way to stop it.
    """

    def never(_: Cancelation) -> bool:
        return True

    for by_token in (False, True):
        with pytest.raises(ManualCancelation):
            async with Cancelable(unless=never) as operation:
                (operation.token if by_token else operation).cancel()
                await checkpoint()

    with pytest.raises(TimeoutCancelation):
        async with Cancelable(timeout=1, unless=never) as operation:
            await sleep_forever()

    assert operation.declined == ()


async def test_an_error_of_the_policy_is_reported_and_declines_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Better stopped once too often than never.
    """
    reported: list[BaseException] = []
    monkeypatch.setattr("sys.excepthook", lambda _type, error, _traceback: reported.append(error))
    token = CancelationToken()

    with pytest.raises(ManualCancelation):
        async with Cancelable(tokens=[token], unless=lambda _: 1 / 0 > 0):
            token.cancel()
            await checkpoint()

    assert [type(error) for error in reported] == [ZeroDivisionError]


async def test_who_cancels_a_token_does_not_hear_what_those_raise_who_wait_for_its_followers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    That is reported, and the operation is interrupted all the same.
    """
    reported: list[BaseException] = []
    monkeypatch.setattr("sys.excepthook", lambda _type, error, _traceback: reported.append(error))
    token = CancelationToken()

    def fail(cause: Cancelation) -> None:
        raise ZeroDivisionError(str(cause))

    with pytest.raises(ManualCancelation):
        async with Cancelable(tokens=(token,)) as operation:
            operation.token.add_callback(fail)
            assert token.cancel(message="enough")
            await anyio.sleep(HOUR)

    assert [repr(error) for error in reported] == ["ZeroDivisionError('enough')"]
    assert anyio.current_time() == 0


@pytest.mark.parametrize("unless", ["disconnect", 1, sleep])
def test_a_policy_must_be_a_plain_function(unless: Any) -> None:
    """
    A coroutine function would decline everything, since coroutines are true.
    """
    with pytest.raises(TypeError, match="unless must be a plain function, got"):
        Cancelable(unless=unless)

    assert Cancelable(unless=None)._unless is None


async def test_what_is_declined_does_not_fill_the_memory() -> None:
    """
    The first sixteen are kept; and the policy is asked about the others, too.
    """
    token = CancelationToken()
    async with Cancelable(tokens=[token], unless=no_disconnect, raise_on_cancel=False) as operation:
        for number in range(100):
            token.cancel(DISCONNECT, str(number))

        assert [cause.message for cause in operation.declined] == [str(number) for number in range(16)]

        token.cancel(SHUTDOWN)

        assert reasons(operation.causes) == [SHUTDOWN]


# --- Others that go by the same tokens


async def test_who_follows_an_operation_goes_by_its_policy() -> None:
    """
    What it declined does not stop its parts elsewhere; what it was told directly does.
    """
    request = CancelationToken()
    leader = Cancelable(tokens=[request], unless=no_disconnect)

    with pytest.raises(DisconnectCancelation):
        async with leader.follow() as follower:
            request.cancel(DISCONNECT)
            await checkpoint()

            assert reasons(follower.declined) == [DISCONNECT]

            leader.cancel(DISCONNECT)
            await checkpoint()
            pytest.fail("the checkpoint did not raise")


async def test_a_combination_asks_the_policy_of_the_part_that_a_cause_belongs_to() -> None:
    """
    It ends as soon as any of its parts would.
    """
    both, one, other = CancelationToken(), CancelationToken(), CancelationToken()
    careful = Cancelable(tokens=[one, both], unless=no_disconnect)

    async with careful.combine(Cancelable(tokens=[other])) as combined:
        one.cancel(DISCONNECT)
        await checkpoint()
        assert not combined.is_cancelled

        other.cancel(DISCONNECT)
        assert combined.cancelation is other.cancelation

    with pytest.raises(DisconnectCancelation):
        async with careful.combine(Cancelable(tokens=[both])):
            both.cancel(DISCONNECT)
            await checkpoint()


async def test_a_stream_goes_by_the_policy() -> None:
    """
    In the middle of a step, and between two.
    """
    request = CancelationToken()

    async def items() -> AsyncIterator[int]:
        for number in range(10):
            await sleep(1)
            yield number

    async def cancel() -> None:
        await sleep(1.5)
        request.cancel(DISCONNECT)
        await sleep(2)
        request.cancel(CancelationReason.SIGNAL)

    async with create_task_group() as tasks:
        tasks.start_soon(cancel)
        got: list[int] = []
        with pytest.raises(SignalCancelation):
            async for number in Cancelable(tokens=[request], unless=no_disconnect).stream(items()):
                got.append(number)

    assert got == [0, 1, 2]


@given(
    events=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([DISCONNECT, SHUTDOWN, CancelationReason.SIGNAL])),
        max_size=8,
    ),
    declined=st.sets(st.sampled_from([DISCONNECT, SHUTDOWN, CancelationReason.SIGNAL])),
    entered_after=st.integers(0, 8),
)
async def test_the_first_cause_that_is_not_declined_decides(
    events: list[tuple[int, CancelationReason]], declined: set[CancelationReason], entered_after: int
) -> None:
    """
    Whatever comes through whichever token, before the block is entered and after.
    """
    top = CancelationToken()
    tokens = [top, top.child(), CancelationToken.any_of(top, CancelationToken())]
    operation = Cancelable(
        tokens=tokens, unless=lambda cause: cause.reason in declined, raise_on_cancel=False
    )
    records: list[Cancelation] = []

    def cancel(number: int, reason: CancelationReason) -> None:
        records.append(Cancelation(reason))
        tokens[number].cancel_with(records[-1])

    for event in events[:entered_after]:
        cancel(*event)
    async with operation:
        for event in events[entered_after:]:
            cancel(*event)

    counting = [record for record in records if record.reason not in declined]
    early = {id(record) for record in records[:entered_after]}
    assert {*map(id, operation.causes)} == {*map(id, counting)}
    assert {*map(id, operation.declined)} == {id(it) for it in records if it.reason in declined}
    if counting and id(counting[0]) not in early:
        assert operation.cancelation is counting[0]
    assert operation.is_cancelled is bool(counting)


def test_threads_that_cancel_at_once_are_each_asked_about() -> None:
    """
    Of the causes of eight threads none is lost, and those that are declined are on the other list.
    """

    async def main() -> None:
        tokens = [CancelationToken() for _ in range(2)]
        async with Cancelable(
            tokens=tokens,
            unless=lambda cause: (cause.message or "") < "4",
            raise_on_cancel=False,
        ) as operation:
            barrier = threading.Barrier(8)

            def cancel(number: int) -> None:
                barrier.wait()
                tokens[number % 2].cancel(message=str(number))

            threads = [threading.Thread(target=cancel, args=(number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

            assert sorted(str(cause.message) for cause in operation.causes) == ["4", "5", "6", "7"]
            assert {cause.message for cause in operation.declined} == {"0", "1", "2", "3"}

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            anyio.run(main)
    finally:
        sys.setswitchinterval(interval)


async def test_a_declined_cause_leaves_the_operation_as_it_was() -> None:
    """
    It completes, as if nothing had happened.
    """
    token = CancelationToken()
    async with Cancelable(tokens=[token], unless=no_disconnect) as operation:
        token.cancel(DISCONNECT)
        await sleep(1)

    assert operation.status is OperationStatus.COMPLETED
    assert operation.cancelation is None
    assert token.statistics().callbacks == 0
    with pytest.raises(CancelationError):
        token.check()


@pytest.mark.parametrize("declines", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("through", ["token", "parent"])
async def test_a_policy_declines_for_its_own_part_alone(through: str, declines: tuple[bool, bool]) -> None:
    """
    What two parts listen to stops an operation made of them, if the policy of either lets it.
    """
    parent = Cancelable()
    asked: list[bool] = []

    def part(declined: bool) -> Cancelable:
        def unless(_: Cancelation) -> bool:
            asked.append(declined)
            return declined

        if through == "token":
            return Cancelable(tokens=[parent.token], unless=unless, raise_on_cancel=False)
        return Cancelable(parent=parent, unless=unless, raise_on_cancel=False)

    first, second = map(part, declines)
    async with first.combine(second) as combined:
        parent.cancel()
        parent.cancel(CancelationReason.SHUTDOWN)
        await checkpoint()

    assert combined.is_cancelled is not all(declines)
    assert len(combined.causes) + len(combined.declined) == 2
    assert len(asked) <= 4
