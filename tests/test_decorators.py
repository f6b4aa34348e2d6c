"""Decorated functions: each call is an operation, and callers see the signature without it."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import wraps
from inspect import iscoroutinefunction, signature
from typing import Any

import anyio
import pytest
from anyio import create_task_group, sleep, sleep_forever

from hother.cancelable import (
    Cancelable,
    CancelableAsyncIterator,
    CancelationToken,
    ConditionCancelation,
    ManualCancelation,
    OperationStatus,
    SignalCancelation,
    TimeoutCancelation,
    cancelable,
    cancelable_combine,
    cancelable_method,
    cancelable_with_condition,
    cancelable_with_signal,
    cancelable_with_token,
    current_operation,
    with_cancelable,
    with_current_operation,
    with_timeout,
)
from hother.cancelable.testing import sweep


def the_operation() -> Cancelable:
    operation = current_operation()
    assert operation is not None
    return operation


# --- cancelable


async def test_each_call_is_a_new_operation() -> None:
    """
    Bare or called, with the function's name; none survives its call.
    """

    @cancelable
    async def bare(a: int, *, b: int = 2) -> tuple[int, int, Cancelable]:
        """Tell."""
        return a, b, the_operation()

    @cancelable(timeout=5, name="another")
    async def called(a: int, *, b: int = 2) -> tuple[int, int, Cancelable]:
        return a, b, the_operation()

    first, second, third = await bare(1), await bare(1, b=3), await called(4)

    assert [it[:2] for it in (first, second, third)] == [(1, 2), (1, 3), (4, 2)]
    assert len({first[2], second[2], third[2]}) == 3
    assert [it[2].name for it in (first, second, third)] == ["bare", "bare", "another"]
    assert third[2].remaining() == 5
    assert {it[2].status for it in (first, second, third)} == {OperationStatus.COMPLETED}
    assert iscoroutinefunction(bare)
    assert (bare.__name__, bare.__doc__) == ("bare", "Tell.")
    assert current_operation() is None


@pytest.mark.parametrize("timeout", [2, timedelta(seconds=2)])
async def test_a_timeout_holds_for_each_call(timeout: float | timedelta) -> None:
    """
    Whenever the function was decorated, and also for calls at the same time.
    """

    @cancelable(timeout=timeout)
    async def slow() -> None:
        await sleep_forever()

    await sleep(10)
    start = anyio.current_time()

    async def call() -> None:
        with pytest.raises(TimeoutCancelation, match="slow: timed out after 2 seconds"):
            await slow()

    async with create_task_group() as group:
        group.start_soon(call)
        group.start_soon(call)

    assert anyio.current_time() - start == 2


async def test_the_operation_is_injected_where_it_is_declared() -> None:
    """
    At any place and of any kind; the callers leave it out.
    """

    @cancelable
    async def first(cancelable: Cancelable, a: int, b: int = 0) -> Any:
        return cancelable is current_operation(), a, b

    @cancelable
    async def middle(a: int, cancelable: Cancelable, b: int = 0) -> Any:
        return cancelable is current_operation(), a, b

    @cancelable
    async def last(a: int, b: int = 0, cancelable: Cancelable | None = None) -> Any:
        return cancelable is current_operation(), a, b

    @cancelable
    async def keyword(a: int, b: int = 0, *, cancelable: Cancelable) -> Any:
        return cancelable is current_operation(), a, b

    @cancelable
    async def positional(cancelable: Cancelable, /, a: int, b: int = 0, **rest: Any) -> Any:
        return cancelable is current_operation() and not rest, a, b

    @cancelable(inject_param="me")
    async def renamed(a: int, me: Cancelable, b: int = 0, *rest: int) -> Any:
        return me is current_operation() and not rest, a, b

    functions: list[Any] = [first, middle, last, keyword, positional, renamed]
    for function in functions:
        assert await function(1, 2) == (True, 1, 2)
        assert await function(1, b=2) == (True, 1, 2)
        assert await function(a=1, b=2) == (True, 1, 2)
        assert not {"cancelable", "me"} & set(signature(function).parameters)
        assert list(signature(function).parameters)[:2] == ["a", "b"]


async def test_injecting_never_replaces_what_a_caller_passed() -> None:
    """
    By name or by position, be it an operation or not.
    """
    mine = Cancelable()

    @cancelable
    async def first(cancelable: object, a: int = 0) -> tuple[object, int]:
        return cancelable, a

    @cancelable
    async def last(a: int, cancelable: Any = None) -> Any:
        return cancelable, a

    @cancelable
    async def keyword(a: int = 0, *, cancelable: Any = None) -> Any:
        return cancelable, a

    @cancelable
    async def positional(cancelable: Cancelable, /, **rest: Any) -> Any:
        return cancelable, rest

    assert await first(mine, 1) == (mine, 1)
    assert await first(cancelable=mine, a=1) == (mine, 1)
    assert await last(1, mine) == (mine, 1)
    assert await last(1, None) == (None, 1)
    assert await last(1, cancelable=7) == (7, 1)
    assert await keyword(1, cancelable=None) == (None, 1)
    injected, rest = await positional(cancelable=7)
    assert isinstance(injected, Cancelable)
    assert injected is not mine
    assert rest == {"cancelable": 7}


async def test_only_a_declared_parameter_is_injected() -> None:
    """
    A function that takes anything is not surprised, nor one that is told not to be.
    """

    @cancelable
    async def anything(*cancelable: Any, **kwargs: Any) -> Any:
        return cancelable, kwargs

    @cancelable(inject_param=None)
    async def none(cancelable: object = None) -> object:
        return cancelable

    assert await anything(1, a=2) == ((1,), {"a": 2})
    assert await anything() == ((), {})
    assert await none() is None
    assert list(signature(none).parameters) == ["cancelable"]


async def test_a_wrong_call_is_a_type_error() -> None:
    """
    As without the decorator.
    """

    @cancelable
    async def function(a: int, cancelable: Cancelable) -> None: ...

    wrong: Any = function
    with pytest.raises(TypeError):
        await wrong()
    with pytest.raises(TypeError):
        await wrong(1, 2, 3)


async def test_an_async_generator_becomes_a_stream() -> None:
    """
    Its steps are the operation: interrupted where they wait, and nothing is armed between them.
    """
    closed: list[bool] = []

    @cancelable(timeout=2.5)
    async def count(cancelable: Cancelable, start: int) -> AsyncIterator[int]:
        assert cancelable is current_operation()
        try:
            for number in range(start, 100):
                yield number
                await sleep(1)
        finally:
            closed.append(cancelable.is_cancelled)

    items: list[int] = []
    stream = count(5)
    assert isinstance(stream, CancelableAsyncIterator)
    with pytest.raises(TimeoutCancelation, match="count: timed out"):
        async for item in stream:
            items.append(item)
    async with count(1) as stream:
        async for _ in stream:
            break
    await sleep(10)

    assert items == [5, 6, 7]
    assert closed == [True, False]


def test_what_cannot_be_cancelled_is_refused() -> None:
    """
    Plain functions, and anything else, when decorated.
    """
    wrong: Any

    def plain() -> None: ...

    for wrong in (plain, staticmethod(plain), print):
        with pytest.raises(TypeError, match="only coroutine functions and async generator functions"):
            cancelable(wrong)
        with pytest.raises(TypeError, match="only coroutine functions and async generator functions"):
            with_cancelable(Cancelable())(wrong)
    with pytest.raises(ValueError, match="timeout must not be negative"):
        cancelable(timeout=-1)
    with pytest.raises(ValueError, match="timeout must not be negative"):
        cancelable_method(timeout=-1)
    wrong = 1
    with pytest.raises(TypeError, match="tokens must be CancelationTokens"):
        cancelable_with_token(wrong)
    with pytest.raises(TypeError, match=r"combine\(\) takes Cancelables"):
        cancelable_combine(wrong)
    with pytest.raises(TypeError, match="with_cancelable takes a Cancelable"):
        with_cancelable(wrong)


# --- Methods


class Service:
    @cancelable_method
    async def bare(self, cancelable: Cancelable, a: int) -> tuple[str | None, int]:
        assert cancelable is current_operation()
        return cancelable.name, a

    @cancelable_method(timeout=2)
    async def slow(self, a: int, *, cancelable: Cancelable | None = None) -> None:
        assert cancelable is current_operation()
        await sleep_forever()

    @cancelable_method(name="items")
    async def items(self, cancelable: Cancelable, count: int) -> AsyncIterator[tuple[str | None, int]]:
        for number in range(count):
            yield cancelable.name, number

    @classmethod
    @cancelable_method
    async def of_class(cls) -> str | None:
        return the_operation().name

    @staticmethod
    @cancelable_method
    async def static() -> str | None:
        return the_operation().name

    @cancelable
    async def plain(self, a: int, cancelable: Cancelable | None = None) -> tuple[str | None, int]:
        assert cancelable is current_operation()
        return the_operation().name, a


class SubService(Service):
    pass


async def test_methods_are_operations_too() -> None:
    """
    Of instances and classes; the class is in the name.
    """
    service = SubService()

    assert await service.bare(1) == ("SubService.bare", 1)
    assert await SubService.bare(service, a=1) == ("SubService.bare", 1)
    with pytest.raises(TimeoutCancelation, match=r"SubService\.slow: timed out"):
        await service.slow(1)
    assert [item async for item in service.items(2)] == [("items", 0), ("items", 1)]
    assert await service.of_class() == "SubService.of_class"
    assert await service.static() == "static"
    assert await service.plain(3) == ("plain", 3)


# --- Tokens, combinations, given operations


async def test_a_token_cancels_all_calls() -> None:
    """
    Those that run and those to come; finished ones leave nothing on it.
    """
    token = CancelationToken()
    caught: list[str] = []

    @cancelable_with_token(token, name="work")
    async def work(cancelable: Cancelable, seconds: float) -> None:
        assert cancelable is current_operation()
        await sleep(seconds)

    async def call() -> None:
        with pytest.raises(ManualCancelation, match="work: enough") as error:
            await work(1000)
        caught.append(str(error.value))

    for _ in range(100):
        await work(0)
    assert token.statistics().callbacks == 0
    async with create_task_group() as group:
        group.start_soon(call)
        group.start_soon(call)
        await sleep(1)
        token.cancel(message="enough")
    await call()

    assert len(caught) == 3


@pytest.mark.real_time
async def test_a_signal_cancels_all_calls() -> None:
    """
    While one of them runs, the signal does not end the process.
    """
    before = signal.getsignal(signal.SIGUSR1)

    @cancelable_with_signal(signal.SIGUSR1, signal.SIGUSR2)
    async def work(cancelable: Cancelable, number: int) -> None:
        assert cancelable is current_operation()
        signal.raise_signal(number)
        await sleep_forever()

    for number in (signal.SIGUSR1, signal.SIGUSR2):
        with pytest.raises(SignalCancelation, match=f"work: received {number.name}"):
            await work(number)
    assert signal.getsignal(signal.SIGUSR1) is before


async def test_a_condition_cancels_all_calls() -> None:
    """
    It is asked at intervals, for each call.
    """
    answers = iter([False, False, True, True])

    @cancelable_with_condition(lambda: next(answers), interval=2)
    async def work(cancelable: Cancelable) -> None:
        assert cancelable is current_operation()
        await sleep_forever()

    start = anyio.current_time()
    for _ in range(2):
        with pytest.raises(ConditionCancelation, match=r"work: .* came true"):
            await work()
    assert anyio.current_time() - start == 4


def test_wrong_signals_and_conditions_are_refused_where_they_are_written() -> None:
    """
    Not when the function is called.
    """
    with pytest.raises(ValueError, match="at least one signal"):
        cancelable_with_signal()
    with pytest.raises(ValueError, match="SIGKILL cannot be caught"):
        cancelable_with_signal(signal.SIGKILL)
    with pytest.raises(TypeError, match="predicate must be callable"):
        cancelable_with_condition("true")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="interval must be positive"):
        cancelable_with_condition(lambda: True, interval=0)


@pytest.mark.parametrize(
    "decorate",
    [
        cancelable_with_signal(signal.SIGUSR1),
        cancelable_with_condition(lambda: True),
        cancelable_combine(Cancelable.with_condition(lambda: True)),
    ],
)
def test_a_stream_cannot_wait_for_sources(decorate: Any) -> None:
    """
    They would have to wait in a task between its steps. It is refused rather than forgotten.
    """

    async def stream() -> AsyncIterator[int]:
        yield 1  # pragma: no cover

    with pytest.raises(TypeError, match="sources wait only in a block"):
        decorate(stream)


async def test_a_combination_cancels() -> None:
    """
    Any of the operations does: the shortest time, each token; and each call is a new one.
    """
    token = CancelationToken()
    parts = Cancelable(timeout=3, name="part"), Cancelable.with_token(token), Cancelable()

    @cancelable_combine(*parts)
    async def work(cancelable: Cancelable) -> None:
        assert cancelable is current_operation()
        assert cancelable.name == "work"
        await sleep_forever()

    for _ in range(2):
        with pytest.raises(TimeoutCancelation):
            await work()
    parts[2].cancel()
    with pytest.raises(ManualCancelation):
        await work()
    assert {part.status for part in parts} == {OperationStatus.PENDING}
    assert token.statistics().callbacks == 0


async def test_calls_may_belong_to_an_operation() -> None:
    """
    In its block it is the current one; elsewhere a new one follows it.
    """
    operation = Cancelable(name="all")

    @with_cancelable(operation)
    async def work(cancelable: Cancelable, seconds: float) -> Cancelable:
        """Work."""
        assert cancelable is current_operation()
        await sleep(seconds)
        return cancelable

    @with_cancelable(operation)
    async def items(cancelable: Cancelable) -> AsyncIterator[Cancelable]:
        while True:
            yield cancelable
            await sleep(1)

    async def elsewhere() -> None:
        with pytest.raises(ManualCancelation, match="enough"):
            await work(1000)

    assert iscoroutinefunction(work)
    assert (work.__name__, work.__doc__) == ("work", "Work.")
    assert list(signature(work).parameters) == ["seconds"]
    assert (await work(0)).name == "all"
    async with create_task_group() as group:
        group.start_soon(elsewhere)
        with pytest.raises(ManualCancelation, match="enough"):
            async with operation:
                assert await work(1) is operation
                seen = 0
                async for it in items():
                    assert it is operation
                    seen += 1
                    if seen == 3:
                        operation.cancel(message="enough")
    with pytest.raises(ManualCancelation, match="enough"):
        await work(0)
    assert operation.token.statistics().callbacks == 0


# --- The current operation


async def test_the_current_operation_is_passed() -> None:
    """
    To plain and async functions and generators, bare or called, unless the caller passes one.
    """

    @with_current_operation
    def plain(a: int, operation: Cancelable | None = None) -> Any:
        return operation, a

    @with_current_operation
    async def asynchronous(operation: Cancelable, a: int) -> tuple[Cancelable, int]:
        return operation, a

    @with_current_operation(inject_param="me")
    async def renamed(a: int, *, me: Cancelable | None = None) -> Any:
        return me, a

    @with_current_operation
    async def items(operation: Cancelable) -> AsyncIterator[Cancelable]:
        yield operation

    mine = Cancelable()
    assert iscoroutinefunction(asynchronous)
    assert plain(1) == (None, 1)
    assert await renamed(1) == (None, 1)
    async with Cancelable() as operation:
        assert plain(1) == await asynchronous(1) == await renamed(1) == (operation, 1)
        assert plain(1, mine) == (mine, 1)
        assert await renamed(1, me=mine) == (mine, 1)
        assert [it async for it in items()] == [operation]


async def test_decorators_can_be_stacked() -> None:
    """
    Each injects its own parameter.
    """

    @cancelable(timeout=5)
    @with_current_operation
    async def both(operation: Cancelable, a: int, cancelable: Cancelable | None = None) -> Any:
        return operation is cancelable is current_operation(), a

    outer: Any = both
    assert await outer(3) == (True, 3)


async def test_a_wrapper_of_another_kind_is_fine() -> None:
    """
    Decorators of others, made with ``functools.wraps``, keep what is injected.
    """

    def shout(function: Any) -> Any:
        @wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return [await function(*args, **kwargs)]

        return wrapper

    @cancelable
    @shout
    async def work(a: int, *, cancelable: Cancelable) -> Any:
        return cancelable is current_operation(), a

    decorated: Any = work
    assert await decorated(1) == [(True, 1)]


# --- with_timeout


async def test_a_coroutine_with_a_timeout() -> None:
    """
    It returns in time, or is interrupted.
    """

    async def work(seconds: float) -> float:
        await sleep(seconds)
        return seconds

    assert await with_timeout(2, work(1)) == 1
    assert await with_timeout(None, work(1)) == 1
    with pytest.raises(TimeoutCancelation, match="work: timed out after 2 seconds"):
        await with_timeout(2, work(3))


async def test_an_impossible_timeout_leaves_no_coroutine_behind() -> None:
    """
    What nobody will await is closed; other awaitables are their owner's.
    """

    class Later:
        def __await__(self) -> Any:
            return (yield)

    with pytest.raises(ValueError, match="timeout must not be negative"):
        await with_timeout(-1, sleep(1))
    with pytest.raises(ValueError, match="timeout must not be negative"):
        await with_timeout(-1, Later())


async def test_a_cancelation_at_any_checkpoint_of_a_decorated_call_leaves_nothing() -> None:
    """
    Wherever it strikes, from outside.
    """
    token = CancelationToken()

    @cancelable_with_token(token)
    async def work() -> None:
        await sleep(1)
        await with_timeout(5, sleep(1))
        await inner()

    @cancelable(timeout=5)
    async def inner(cancelable: Cancelable) -> None:
        async with cancelable.shield():
            await sleep(1)
        await sleep(1)

    def check() -> None:
        assert token.statistics().callbacks == 0

    assert len(await sweep(work, check=check)) > 4
