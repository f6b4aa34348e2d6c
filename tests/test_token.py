"""The token by itself: no scopes, no operations."""

from __future__ import annotations

import gc
import random
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

import anyio
import pytest
from anyio import CancelScope, create_task_group, fail_after, move_on_after, wait_all_tasks_blocked

from hother.cancelable import (
    Cancelation,
    CancelationError,
    CancelationReason,
    CancelationToken,
    ConditionCancelation,
    DisconnectCancelation,
    ManualCancelation,
    ParentCancelation,
    ShutdownCancelation,
    SignalCancelation,
    TimeoutCancelation,
    TokenStatistics,
)
from hother.cancelable._core._token import Listener
from hother.cancelable._core._wakeup import CallSite
from tests.interruption import at_line

HOUR = 3600.0

ERRORS = {
    CancelationReason.TIMEOUT: TimeoutCancelation,
    CancelationReason.MANUAL: ManualCancelation,
    CancelationReason.SIGNAL: SignalCancelation,
    CancelationReason.CONDITION: ConditionCancelation,
    CancelationReason.PARENT: ParentCancelation,
    CancelationReason.DISCONNECT: DisconnectCancelation,
    CancelationReason.SHUTDOWN: ShutdownCancelation,
    CancelationReason.ERROR: CancelationError,
    CancelationReason.EXTERNAL: CancelationError,
}


# --- The flag


def test_the_first_cancel_wins() -> None:
    """
    Later cancels neither succeed nor overwrite the first one's reason.
    """
    token = CancelationToken()

    assert token.cancel(CancelationReason.TIMEOUT, "too slow")
    assert not token.cancel(CancelationReason.SIGNAL)

    assert token.cancelation == Cancelation(CancelationReason.TIMEOUT, "too slow")


def test_a_new_token_is_not_cancelled() -> None:
    """
    Nothing is wrong with a token that nobody cancelled.
    """
    token = CancelationToken()

    token.check()

    assert not token.is_cancelled
    assert token.cancelation is None
    assert token.statistics() == TokenStatistics(cancelation=None, callbacks=0)


def test_a_cancelation_says_what_why_who_and_when() -> None:
    """
    All that the canceller knew is on the record, and the time is added.
    """
    token = CancelationToken()
    cause = Cancelation(CancelationReason.DISCONNECT)

    before = time.time()
    token.cancel(CancelationReason.ERROR, "no database", by="watchdog", cause=cause)
    after = time.time()

    assert token.is_cancelled
    assert token.cancelation == Cancelation(CancelationReason.ERROR, "no database", "watchdog", cause)
    assert token.cancelation is not None
    assert before <= token.cancelation.at <= after


def test_cancel_with_keeps_the_very_record() -> None:
    """
    A record that is passed on from token to token stays the same object.
    """
    first, second = CancelationToken(), CancelationToken()

    first.cancel(message="enough")
    assert first.cancelation is not None
    assert second.cancel_with(first.cancelation)
    assert not second.cancel_with(Cancelation(CancelationReason.SIGNAL))

    assert second.cancelation is first.cancelation


@pytest.mark.parametrize("reason", ["manual", None, 1])
def test_a_reason_must_be_a_reason(reason: object) -> None:
    """
    A string in the place of a reason is refused at once, and cancels nothing.
    """
    token = CancelationToken()

    with pytest.raises(TypeError, match=r"reason must be a CancelationReason, got"):
        token.cancel(reason)  # type: ignore[arg-type]

    assert not token.is_cancelled


def test_a_reason_has_an_error() -> None:
    """
    The table that the next test uses knows every reason there is.
    """
    assert set(ERRORS) == set(CancelationReason)


@pytest.mark.parametrize("reason", CancelationReason)
def test_check_raises_the_error_of_the_reason(reason: CancelationReason) -> None:
    """
    The class of the error tells the reason, and the error carries the record.
    """
    token = CancelationToken()
    token.cancel(reason, "stop")

    with pytest.raises(CancelationError) as caught:
        token.check()

    assert type(caught.value) is ERRORS[reason]
    assert caught.value.cancelation is token.cancelation
    assert caught.value.context is None


def test_the_repr_tells_the_state() -> None:
    """
    A token in a log line says whether it was cancelled, and why.
    """
    token = CancelationToken()

    assert repr(token).startswith("<CancelationToken active at 0x")

    token.cancel(message="enough", by="alice")

    assert repr(token).startswith("<CancelationToken cancelled: enough (by alice) at 0x")


def test_one_of_many_threads_wins() -> None:
    """
    However many threads cancel at the same time, one of them is told that it was the first.
    """
    with switching_often():
        for _ in range(20):
            token = CancelationToken()
            barrier = threading.Barrier(8)
            wins: list[int] = []

            def cancel(
                i: int,
                token: CancelationToken = token,
                barrier: threading.Barrier = barrier,
                wins: list[int] = wins,
            ) -> None:
                barrier.wait()
                if token.cancel(message=str(i)):
                    wins.append(i)

            run_in_threads(cancel, 8)

            assert token.cancelation is not None
            assert [str(i) for i in wins] == [token.cancelation.message]


# --- Causes


def test_all_causes_are_kept_in_order() -> None:
    """
    The first one decides; the others are on record.
    """
    token = CancelationToken()

    assert not token.causes

    for reason in CancelationReason:
        token.cancel(reason)

    assert [cause.reason for cause in token.causes] == list(CancelationReason)
    assert token.causes[0] is token.cancelation


def test_a_record_that_comes_again_is_the_same_cause() -> None:
    """
    What reaches a token on two ways, or twice, counts once.
    """
    token = CancelationToken()
    below = CancelationToken.any_of(token.child(), token, token.child())
    record = Cancelation(CancelationReason.SHUTDOWN)

    assert token.cancel_with(record)
    assert not token.cancel_with(record)

    assert token.causes == below.causes == (record,)


def test_ten_thousand_cancels_do_not_fill_the_memory() -> None:
    """
    The first sixteen causes are kept, and a diamond of links does not multiply the others.
    """
    token = CancelationToken()
    below = token
    for _ in range(40):  # there are 2 ** 40 ways down
        below = CancelationToken.any_of(below.child(), below.child())
    for number in range(100):
        token.cancel(message=str(number))
    for number in range(10_000):
        below.cancel(message=str(number))

    assert [cause.message for cause in token.causes] == [str(number) for number in range(16)]
    assert below.causes == token.causes
    assert len(below._causes) == 16


def test_threads_that_cancel_at_once_agree_on_the_causes() -> None:
    """
    Every cause of every thread is on record once, and each thread's are in its order; children agree.
    """
    with switching_often():
        for _ in range(30):
            token = CancelationToken()
            children = [token.child() for _ in range(2)]
            told: list[Cancelation] = []
            token.add_callback(told.append)

            def cancel(i: int, token: CancelationToken = token) -> None:
                for number in range(2):
                    token.cancel(message=f"{i} {number}")

            run_in_threads(cancel, 8)

            messages = [str(cause.message) for cause in token.causes]
            assert sorted(messages) == [f"{i} {number}" for i in range(8) for number in range(2)]
            assert all(messages.index(f"{i} 0") < messages.index(f"{i} 1") for i in range(8))
            assert told == [token.cancelation]
            for child in children:
                assert child.cancelation is token.cancelation
                assert sorted(str(cause.message) for cause in child.causes) == sorted(messages)


def test_a_listener_hears_of_every_cause() -> None:
    """
    Also of those before it, and of those that are not kept; until it is taken back.
    """
    token = CancelationToken()
    token.cancel(message="before")
    listener = _Hears()
    token._listen(listener)

    for number in range(20):
        token.cancel(message=str(number))
    token._remove_callback(listener)
    token.cancel(message="after")

    heard = {id(cause): cause for cause in listener.heard}
    assert [cause.message for cause in heard.values()] == ["before", *map(str, range(20))]
    assert token.statistics().callbacks == 0


def test_a_listener_that_another_one_takes_back_is_not_called() -> None:
    """
    Taken back is taken back, also in the middle of telling.
    """
    token = CancelationToken()
    listener = _Hears()
    token.add_callback(lambda _: token._remove_callback(listener))
    token._listen(listener)

    token.cancel()

    assert listener.heard == []


def test_what_a_listener_raises_is_raised_by_cancel() -> None:
    """
    Like what a callback raises: after all others have been told.
    """

    class Fails(Listener):
        def hear(self, cause: Cancelation, site: CallSite) -> None:
            raise ValueError(str(cause))

    token = CancelationToken()
    listener = _Hears()
    token._listen(Fails())
    token._listen(listener)

    with pytest.raises(ValueError, match="enough"):
        token.cancel(message="enough")

    assert listener.heard == [token.cancelation]


def test_the_owner_of_a_token_hears_first() -> None:
    """
    Before the callbacks that were there before it, and of each cause, until it leaves; it counts like them.
    """
    token = CancelationToken()
    heard: list[object] = []
    owner = _Hears()
    token.add_callback(lambda _: heard.extend(owner.heard))
    token._belong_to(owner)
    assert token.statistics().callbacks == 2

    token.cancel()
    assert heard == [token.cancelation]
    token.cancel(message="again")
    token._leave(owner)
    token.cancel(message="after")

    assert owner.heard[-1] is token.causes[1]
    assert token.statistics().callbacks == 0


def test_who_comes_to_own_a_cancelled_token_hears_of_it() -> None:
    """
    Of all that has happened, at once.
    """
    token = CancelationToken()
    token.cancel()
    token.cancel(message="again")
    owner = _Hears()

    token._belong_to(owner)

    assert tuple(owner.heard) == token.causes


@pytest.mark.parametrize("leaves", [0, 1])
def test_a_second_owner_of_a_token_hears_too(leaves: int) -> None:
    """
    Whichever of the two leaves, the other one still hears.
    """
    token = CancelationToken()
    owners = [_Hears(), _Hears()]
    for owner in owners:
        token._belong_to(owner)

    token._leave(owners[leaves])
    token.cancel()

    assert owners[leaves].heard == []
    assert owners[1 - leaves].heard == [token.cancelation]
    assert token.statistics().callbacks == 1


def test_what_the_owner_raises_is_raised_by_cancel() -> None:
    """
    After all others have been told.
    """

    class Fails(Listener):
        def hear(self, cause: Cancelation, site: CallSite) -> None:
            raise ValueError(str(cause))

    token = CancelationToken()
    listener = _Hears()
    token._belong_to(Fails())
    token._listen(listener)

    with pytest.raises(ValueError, match="enough"):
        token.cancel(message="enough")

    assert listener.heard == [token.cancelation]


class _Hears(Listener):
    def __init__(self) -> None:
        self.heard: list[Cancelation] = []

    def hear(self, cause: Cancelation, site: CallSite) -> None:
        self.heard.append(cause)


# --- Callbacks


def test_callbacks_run_in_the_order_in_which_they_were_added() -> None:
    """
    First come, first served; each gets the record.
    """
    token = CancelationToken()
    calls: list[tuple[str, Cancelation]] = []
    token.add_callback(lambda cancelation: calls.append(("first", cancelation)))
    token.add_callback(lambda cancelation: calls.append(("second", cancelation)))

    token.cancel()

    assert token.cancelation is not None
    assert calls == [("first", token.cancelation), ("second", token.cancelation)]
    assert token.statistics().callbacks == 0


def test_a_callback_runs_once() -> None:
    """
    A second cancel does not run callbacks again.
    """
    token = CancelationToken()
    calls: list[Cancelation] = []
    token.add_callback(calls.append)

    token.cancel()
    token.cancel()

    assert len(calls) == 1


def test_a_function_that_is_added_twice_runs_twice() -> None:
    """
    Each adding counts, and each is taken back by itself.
    """
    token = CancelationToken()
    calls: list[Cancelation] = []
    token.add_callback(calls.append)
    token.add_callback(calls.append)
    remove_third = token.add_callback(calls.append)

    remove_third()
    token.cancel()

    assert len(calls) == 2


def test_a_late_callback_runs_at_once() -> None:
    """
    Who comes after the cancel is served on the spot, and leaves nothing behind.
    """
    token = CancelationToken()
    token.cancel()
    calls: list[Cancelation] = []

    remove = token.add_callback(calls.append)

    assert calls == [token.cancelation]
    assert token.statistics().callbacks == 0

    remove()


def test_a_late_callback_raises_to_who_adds_it() -> None:
    """
    There is no cancel any more that could raise its error.
    """
    token = CancelationToken()
    token.cancel()

    with pytest.raises(ZeroDivisionError):
        token.add_callback(lambda _: 1 / 0)

    assert token.statistics().callbacks == 0


def test_a_removed_callback_never_runs() -> None:
    """
    Taken back is taken back, and twice is not too often.
    """
    token = CancelationToken()
    calls: list[Cancelation] = []
    remove = token.add_callback(calls.append)

    assert token.statistics().callbacks == 1

    remove()
    remove()

    assert token.statistics().callbacks == 0

    token.cancel()

    assert calls == []


def test_removing_a_callback_that_ran_does_nothing() -> None:
    """
    Too late is no error.
    """
    token = CancelationToken()
    calls: list[Cancelation] = []
    remove = token.add_callback(calls.append)
    token.cancel()

    remove()

    assert len(calls) == 1


def test_a_removed_callback_is_let_go() -> None:
    """
    The token keeps nothing of a callback that was taken back, even if its remover lives on.
    """

    class Callback:
        def __call__(self, _: Cancelation) -> None: ...

    token = CancelationToken()
    callback = Callback()
    gone = weakref.ref(callback)
    remove = token.add_callback(callback)

    remove()
    del callback
    gc.collect()

    assert gone() is None


def test_a_callback_must_be_callable() -> None:
    """
    A mistake is found where it is made.
    """
    token = CancelationToken()

    with pytest.raises(TypeError, match="callback must be callable, got 42"):
        token.add_callback(42)  # type: ignore[arg-type]

    assert token.statistics().callbacks == 0


def test_an_error_is_raised_after_all_callbacks_have_run() -> None:
    """
    A broken callback keeps none of the others from running, and the token is cancelled all the same.
    """
    token = CancelationToken()
    calls: list[Cancelation] = []
    token.add_callback(calls.append)
    token.add_callback(lambda _: 1 / 0)
    token.add_callback(calls.append)

    with pytest.raises(ZeroDivisionError):
        token.cancel()

    assert len(calls) == 2
    assert token.is_cancelled
    assert token.statistics().callbacks == 0


def test_errors_of_several_callbacks_are_grouped() -> None:
    """
    None of the errors gets lost.
    """
    token = CancelationToken()
    token.add_callback(lambda _: 1 / 0)
    token.add_callback(lambda _: [].pop())

    with pytest.RaisesGroup(ZeroDivisionError, IndexError, match="callbacks"):
        token.cancel()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_exit_in_a_callback_keeps_no_other_from_running(error: type[BaseException]) -> None:
    """
    The flag goes up only once: whoever does not hear of it now never will.
    """
    token = CancelationToken()
    calls: list[Cancelation] = []

    def leave(_: Cancelation) -> None:
        raise error

    token.add_callback(leave)
    token.add_callback(calls.append)

    with pytest.raises(error):
        token.cancel()

    assert len(calls) == 1


def test_a_callback_may_add_remove_and_cancel() -> None:
    """
    Callbacks may use the token that runs them.
    """
    token = CancelationToken()
    calls: list[str] = []

    def meddle(_: Cancelation) -> None:
        calls.append("meddle")
        token.add_callback(lambda _: calls.append("added"))
        remove()
        assert not token.cancel()

    token.add_callback(meddle)
    remove = token.add_callback(lambda _: calls.append("removed"))

    token.cancel()

    assert calls == ["meddle", "added"]
    assert token.statistics().callbacks == 0


def test_a_signal_handler_may_cancel_the_token_that_is_being_cancelled() -> None:
    """
    The handler interrupts a cancel in the very same thread: there is no lock to wait for in vain.
    """
    token = CancelationToken()
    answers: list[bool] = []
    token.add_callback(lambda _: signal.raise_signal(signal.SIGUSR1))
    previous = signal.signal(signal.SIGUSR1, lambda *_: answers.append(token.cancel()))

    try:
        assert token.cancel()
    finally:
        signal.signal(signal.SIGUSR1, previous)

    assert answers == [False]


@pytest.mark.parametrize("what", ["cancel", "add", "remove", "child", "any_of"])
def test_a_cancel_may_interrupt_a_token_at_any_line(what: str) -> None:
    """
    Wherever a signal handler cancels, one cancel is the first, and nobody is forgotten or told twice.
    """
    for line in count(1):
        if not interrupt_with_cancel(what, line):
            break

    assert line > 3


def interrupt_with_cancel(what: str, line: int) -> bool:
    """Do something with a token, and interrupt that at the given line. Tells whether there is such a line."""
    token = CancelationToken()
    calls: list[Cancelation] = []
    answers: list[bool] = []
    children: list[CancelationToken] = []
    remove = token.add_callback(calls.append)
    actions: dict[str, Callable[[], object]] = {
        "cancel": lambda: answers.append(token.cancel(CancelationReason.MANUAL)),
        "add": lambda: token.add_callback(calls.append),
        "remove": remove,
        "child": lambda: children.append(token.child()),
        "any_of": lambda: children.append(CancelationToken.any_of(CancelationToken(), token, token)),
    }

    with at_line(line, lambda: answers.append(token.cancel(CancelationReason.SIGNAL))) as where:
        actions[what]()
    answers.append(token.cancel(CancelationReason.TIMEOUT))

    assert answers.count(True) == 1
    assert all(call is token.cancelation for call in calls)
    assert len(calls) in {"add": [2], "remove": [0, 1]}.get(what, [1])
    assert all(child.cancelation is token.cancelation for child in children)
    assert all(child.causes == token.causes for child in children)
    assert token.statistics().callbacks == len(children)

    return bool(where)


def test_removing_may_interrupt_a_cancel_at_any_line() -> None:
    """
    A callback that is taken back while it is still on the token never runs.
    """
    for line in count(1):
        if not interrupt_with_remove(line):
            break

    assert line > 5


def interrupt_with_remove(line: int) -> bool:
    """Cancel a token, and remove its callback at the given line. Tells whether there is such a line."""
    token = CancelationToken()
    calls: list[Cancelation] = []
    waiting: list[int] = []
    remove = token.add_callback(calls.append)

    def interrupt() -> None:
        waiting.append(token.statistics().callbacks)
        remove()

    with at_line(line, interrupt) as where:
        token.cancel()

    assert len(calls) == (0 if waiting == [1] else 1)

    return bool(where)


# --- Waiting


async def test_wait_returns_the_cancelation() -> None:
    """
    All waiters wake up, and hear why.
    """
    token = CancelationToken()
    heard: list[Cancelation] = []

    async def listen() -> None:
        heard.append(await token.wait())

    async with create_task_group() as group:
        for _ in range(3):
            group.start_soon(listen)
        await wait_all_tasks_blocked()

        assert token.statistics().callbacks == 3

        token.cancel()

    assert heard == [token.cancelation] * 3
    assert token.statistics().callbacks == 0


async def test_wait_on_a_cancelled_token_is_still_a_checkpoint() -> None:
    """
    Who waits for what has happened gives others a turn, and hears of a cancelation from outside.
    """
    token = CancelationToken()
    token.cancel()

    turns: list[str] = []
    async with create_task_group() as group:
        group.start_soon(wait_and_note, token, turns)
        group.start_soon(wait_and_note, token, turns)

    assert turns == ["before", "before", "after", "after"]

    with CancelScope() as scope:
        scope.cancel()
        await token.wait()

    assert scope.cancelled_caught


async def wait_and_note(token: CancelationToken, turns: list[str]) -> None:
    turns.append("before")
    await token.wait()
    turns.append("after")


async def test_wait_leaves_nothing_behind_when_its_scope_times_out() -> None:
    """
    A waiter that gives up takes its callback with it.
    """
    token = CancelationToken()

    start = anyio.current_time()
    with move_on_after(HOUR) as scope:
        await token.wait()

    assert scope.cancelled_caught
    assert anyio.current_time() - start == HOUR
    assert token.statistics().callbacks == 0


async def test_a_broken_callback_does_not_keep_waiters_asleep() -> None:
    """
    The canceller gets the error, the waiters get the news.
    """
    token = CancelationToken()

    async with create_task_group() as group:
        token.add_callback(lambda _: 1 / 0)
        group.start_soon(token.wait)
        await wait_all_tasks_blocked()

        with pytest.raises(ZeroDivisionError):
            token.cancel()


# --- Links


def test_a_child_is_cancelled_with_its_parent() -> None:
    """
    The whole family shares one record.
    """
    parent = CancelationToken()
    child = parent.child()
    grandchild = child.child()

    parent.cancel(CancelationReason.SHUTDOWN, by="server")

    assert parent.cancelation is not None
    assert child.cancelation is parent.cancelation
    assert grandchild.cancelation is parent.cancelation


def test_a_child_can_be_cancelled_alone() -> None:
    """
    Its parent neither hears of it nor remembers it.
    """
    parent = CancelationToken()
    child = parent.child()

    assert parent.statistics().callbacks == 1
    assert child.cancel()

    assert not parent.is_cancelled
    assert parent.cancel()
    assert child.cancelation is not parent.cancelation
    assert child.causes[1:] == parent.causes


def test_a_child_of_a_cancelled_token_is_born_cancelled() -> None:
    """
    A link that comes late still counts.
    """
    parent = CancelationToken()
    parent.cancel()

    child = parent.child()

    assert child.cancelation is parent.cancelation


@pytest.mark.parametrize("which", [0, 1, 2])
def test_any_of_is_cancelled_with_the_first(which: int) -> None:
    """
    One is enough, and its reason counts; of the others, it is a later cause.
    """
    tokens = [CancelationToken() for _ in range(3)]
    joined = CancelationToken.any_of(*tokens)

    tokens[which].cancel(message=str(which))

    assert joined.cancelation is tokens[which].cancelation

    tokens[which - 1].cancel(message="late")

    assert joined.cancelation is tokens[which].cancelation
    assert joined.causes == (tokens[which].cancelation, tokens[which - 1].cancelation)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_any_of_with_a_cancelled_token_is_cancelled(which: int) -> None:
    """
    Whatever the order.
    """
    tokens = [CancelationToken() for _ in range(3)]
    tokens[which].cancel()

    joined = CancelationToken.any_of(*tokens)

    assert joined.cancelation is tokens[which].cancelation


def test_any_of_takes_a_token_twice_and_no_token_at_all() -> None:
    """
    Odd lists are no errors: the same token twice is that token, and nothing never happens.
    """
    token = CancelationToken()
    twice = CancelationToken.any_of(token, token)
    never = CancelationToken.any_of()

    token.cancel()

    assert twice.cancelation is token.cancelation
    assert not never.is_cancelled
    assert token.statistics().callbacks == 1


def test_any_of_takes_tokens_only() -> None:
    """
    A wrong argument is named, and nothing is linked before all are looked at.
    """
    token = CancelationToken()

    with pytest.raises(TypeError, match="takes tokens, got 'token'"):
        CancelationToken.any_of(token, "token")  # type: ignore[arg-type]

    assert token.statistics().callbacks == 0


def test_errors_of_a_childs_callbacks_reach_the_canceller_of_its_parent() -> None:
    """
    A broken callback in one branch of a family does not save the other branches.
    """
    parent = CancelationToken()
    children = [parent.child() for _ in range(3)]
    children[0].add_callback(lambda _: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        parent.cancel()

    assert all(child.is_cancelled for child in children)


def test_ten_thousand_forgotten_children_leave_nothing_on_a_token() -> None:
    """
    A parent does not keep its children alive, and a child takes its link along.
    """
    parent = CancelationToken()

    for _ in range(10_000):
        CancelationToken.any_of(parent, CancelationToken())
    gc.collect()

    assert parent.statistics().callbacks == 0


def test_a_token_in_the_middle_lives_as_long_as_its_child() -> None:
    """
    A chain holds, though nobody else holds on to what lies between its ends.
    """
    top = CancelationToken()
    bottom = top.child().child().child()
    gc.collect()

    top.cancel()

    assert bottom.cancelation is top.cancelation


def test_a_cancelled_token_lets_its_parents_go_when_it_goes() -> None:
    """
    Until then it hears of their causes, too.
    """
    parent = CancelationToken()
    gone = weakref.ref(parent)
    child = parent.child()
    child.cancel()

    parent.cancel(CancelationReason.SHUTDOWN)

    assert [cause.reason for cause in child.causes] == [CancelationReason.MANUAL, CancelationReason.SHUTDOWN]

    del parent

    assert gone() is not None

    del child

    assert gone() is None


def test_a_family_nobody_holds_is_let_go() -> None:
    """
    Links make no ring that keeps itself alive.
    """
    parent = CancelationToken()
    child = parent.child()
    gone = weakref.ref(parent), weakref.ref(child)

    del parent, child
    gc.collect()

    assert [reference() for reference in gone] == [None, None]


def test_a_chain_may_be_long() -> None:
    """
    A loop that makes each token the child of the last one meets no limit of the interpreter's stack.
    """
    chain = [CancelationToken()]
    for _ in range(3_000):
        chain.append(chain[-1].child())

    chain[0].cancel()

    assert all(token.is_cancelled for token in chain)


# --- Threads


@pytest.mark.real_time
async def test_cancel_from_a_thread_wakes_an_idle_loop() -> None:
    """
    A thread's cancel reaches a waiter although the loop has nothing else to do.
    """
    token = CancelationToken()

    threading.Timer(0.05, token.cancel, [CancelationReason.SIGNAL]).start()
    start = anyio.current_time()
    with fail_after(6):
        cancelation = await token.wait()

    assert cancelation.reason is CancelationReason.SIGNAL
    # The deadline wakes the loop too: a lost wake-up would look like a late success.
    assert anyio.current_time() - start < 2


@pytest.mark.real_time
async def test_a_burst_of_cancels_from_threads_loses_none() -> None:
    """
    A thousand tokens cancelled by eight threads at once wake a thousand waiters.
    """
    tokens = [CancelationToken() for _ in range(1_000)]

    def cancel(i: int) -> None:
        for token in tokens[i::8]:
            token.cancel(message=str(i))

    with fail_after(5):
        async with create_task_group() as group:
            for token in tokens:
                group.start_soon(token.wait)
            await wait_all_tasks_blocked()
            await anyio.to_thread.run_sync(run_in_threads, cancel, 8)

    assert [token.statistics().callbacks for token in tokens] == [0] * 1_000


def test_threads_that_link_and_cancel_at_random_neither_lose_nor_double_a_callback() -> None:
    """
    Of each callback it is known how often it ran: once if its token was cancelled, unless it was removed.
    """
    rounds = 0
    stop = time.monotonic() + 0.8
    with switching_often():
        while time.monotonic() < stop:
            rounds += 1
            tangle = Tangle(seed=rounds)
            run_in_threads(tangle.meddle, 8)
            tangle.verify()

    assert rounds > 1


@dataclass
class Entry:
    """A callback that was added to a token."""

    token: CancelationToken
    calls: list[Cancelation]
    removed: bool


class Tangle:
    """Tokens and callbacks that many threads add to, take from, and cancel."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.tokens = [CancelationToken() for _ in range(4)]
        self.entries: list[Entry] = []
        self.links: list[tuple[CancelationToken, tuple[CancelationToken, ...]]] = []

    def meddle(self, i: int) -> None:
        """Do one thread's share."""
        rng = random.Random(self.seed * 8 + i)
        for _ in range(25):
            token = rng.choice(self.tokens)
            match rng.randrange(8):
                case 0 | 1 | 2:
                    self.add_callback(token, remove=False)
                case 3:
                    self.add_callback(token, remove=True)
                case 4 | 5:
                    self.link(token, *rng.choices(self.tokens, k=rng.randint(0, 2)))
                case 6:
                    token.child()  # nobody holds it
                case _:
                    token.cancel(message=str(i))

    def add_callback(self, token: CancelationToken, *, remove: bool) -> None:
        entry = Entry(token, [], removed=remove)
        remover = token.add_callback(entry.calls.append)
        if remove:
            remover()
        self.entries.append(entry)

    def link(self, *parents: CancelationToken) -> None:
        child = CancelationToken.any_of(*parents)
        self.links.append((child, parents))
        self.tokens.append(child)

    def verify(self) -> None:
        """Look at the outcome, when all threads have ended."""
        for entry in self.entries:
            assert entry.calls in ([], [entry.token.cancelation])

            if not entry.removed:
                assert bool(entry.calls) == entry.token.is_cancelled

        for child, parents in self.links:
            assert child.is_cancelled or not any(parent.is_cancelled for parent in parents)

            for parent in parents:  # a child has heard all that they have, as far as it keeps that
                missing = {id(cause) for cause in parent.causes} - {id(cause) for cause in child.causes}
                assert not missing or len(child.causes) == 16

        for token in self.tokens:
            assert token.statistics().callbacks == self.waiting_for(token)

    def waiting_for(self, token: CancelationToken) -> int:
        entries = sum(entry.token is token and not entry.removed for entry in self.entries)
        links = sum(token in parents for _, parents in self.links)
        return links if token.is_cancelled else links + entries


def test_removing_while_another_thread_cancels_runs_a_callback_at_most_once() -> None:
    """
    Either the remover was first or the cancel was, and nothing is left on the token.
    """
    with switching_often():
        for _ in range(100):
            token = CancelationToken()
            calls: list[Cancelation] = []
            removers = [token.add_callback(calls.append) for _ in range(20)]
            thread = threading.Thread(target=token.cancel)
            thread.start()
            for remove in removers:
                remove()
            thread.join()

            assert len(calls) <= 20
            assert token.statistics().callbacks == 0


@pytest.mark.real_time
async def test_check_stops_a_busy_thread() -> None:
    """
    A thread cannot be interrupted, but it can ask.
    """
    token = CancelationToken()
    running = threading.Event()

    def work() -> None:
        while True:
            running.set()
            token.check()

    async def cancel() -> None:
        await anyio.to_thread.run_sync(running.wait)
        token.cancel(CancelationReason.SHUTDOWN)

    with fail_after(5):
        async with create_task_group() as group:
            group.start_soon(cancel)
            with pytest.raises(ShutdownCancelation):
                await anyio.to_thread.run_sync(work)


@contextmanager
def switching_often() -> Iterator[None]:
    """Have threads take turns as often as the interpreter allows."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def run_in_threads(function: Callable[[int], object], count: int) -> None:
    """Call *function* with 0, 1, ... in *count* threads at once, and fail if any of them fails."""
    errors: list[BaseException] = []

    def run(i: int) -> None:
        try:
            function(i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
