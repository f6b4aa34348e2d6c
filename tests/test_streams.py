"""Streams that end with an operation, and leave nothing behind wherever they are left."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Awaitable, Generator
from contextlib import nullcontext
from typing import Any
from weakref import WeakSet

import anyio
import pytest
from anyio import CancelScope, create_task_group, move_on_after, sleep, sleep_forever, wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from hother.cancelable import (
    Cancelable,
    CancelableAsyncIterator,
    CancelationReason,
    CancelationToken,
    LifecycleError,
    ManualCancelation,
    OperationStatus,
    ParentCancelation,
    TimeoutCancelation,
    TimeoutSource,
    cancelable_stream,
    chunked_cancelable_stream,
    current_operation,
)
from hother.cancelable.testing import sweep


class Source:
    """Yields numbers, one per second, and knows in which task it was closed, and when."""

    def __init__(self, length: int = 1000, *, pause: float = 1, closing: float = 0) -> None:
        self.length = length
        self.pause = pause
        self.closing = closing
        self.fetched = 0
        self.closed_by: list[int] = []
        self.has_ended = False

    def __aiter__(self) -> AsyncIterator[int]:
        return self

    async def __anext__(self) -> int:
        await sleep(self.pause)
        if self.fetched == self.length:
            raise StopAsyncIteration
        self.fetched += 1
        return self.fetched

    async def aclose(self) -> None:
        self.closed_by.append(anyio.get_current_task().id)
        await sleep(self.closing)
        self.has_ended = True


async def numbers(length: int = 1000, pause: float = 1) -> AsyncIterator[int]:
    for number in range(1, length + 1):
        await sleep(pause)
        yield number


class NoClose:
    """A source that cannot be closed."""

    def __aiter__(self) -> AsyncIterator[int]:
        return self

    async def __anext__(self) -> int:
        await checkpoint()
        raise StopAsyncIteration


def here() -> int:
    return anyio.get_current_task().id


async def assert_nothing_is_armed(token: CancelationToken | None = None) -> None:
    """Nothing listens, and no scope is left that would end this task."""
    assert token is None or token.statistics().callbacks == 0
    assert current_operation() is None
    await sleep(10_000)


# --- All items


@pytest.mark.parametrize("source", [numbers(0), Source(0), NoClose()], ids=["generator", "class", "no close"])
async def test_an_empty_stream_is_over_at_once(source: Any) -> None:
    """
    And stays that.
    """
    stream = cancelable_stream(source, timeout=10)

    assert [item async for item in stream] == []
    assert [item async for item in stream] == []


async def test_all_items_come_in_order() -> None:
    """
    In a block or not; and then the source is closed.
    """
    sources = Source(3), Source(3)
    async with Cancelable(timeout=10) as operation:
        assert [item async for item in operation.stream(sources[0])] == [1, 2, 3]
    stream = cancelable_stream(sources[1], timeout=10, buffer_partial=2)
    assert [item async for item in stream] == [1, 2, 3]

    assert [source.closed_by for source in sources] == [[here()]] * 2
    assert stream.count == 3
    assert stream.partial == [2, 3]
    assert "closed, 3 items" in repr(stream)
    await assert_nothing_is_armed()


class Awaitables:
    """A source whose steps are no coroutines."""

    def __init__(self) -> None:
        self.fetched = 0

    def __aiter__(self) -> AsyncIterator[int]:
        return self

    def __anext__(self) -> Awaitable[int]:
        return Step(self)


class Step:
    """Can be awaited, and nothing else."""

    def __init__(self, source: Awaitables) -> None:
        self.source = source

    def __await__(self) -> Generator[Any, Any, int]:
        yield from checkpoint().__await__()
        if self.source.fetched == 3:
            raise StopAsyncIteration
        self.source.fetched += 1
        return self.source.fetched


@pytest.mark.parametrize("inside", [True, False])
async def test_the_steps_of_a_source_may_be_any_awaitables(inside: bool) -> None:
    """
    Only coroutines, and the steps of generators, can be sent to.
    """
    operation = Cancelable()
    async with operation if inside else nullcontext():
        assert [item async for item in operation.stream(Awaitables())] == [1, 2, 3]

    operation, source = Cancelable(), Awaitables()
    with pytest.raises(ManualCancelation):
        async with operation if inside else nullcontext():
            async for _ in operation.stream(source):
                operation.cancel()

    assert source.fetched == 1


async def test_an_error_of_the_source_passes_through() -> None:
    """
    As itself, and the source is closed.
    """

    class Failing(Source):
        async def __anext__(self) -> int:
            if self.fetched == 1:
                raise ZeroDivisionError
            return await super().__anext__()

    source = Failing()
    items: list[int] = []
    with pytest.raises(ZeroDivisionError):
        async for item in cancelable_stream(source, timeout=10):
            items.append(item)

    assert items == [1]
    assert source.has_ended


# --- Interrupted


@pytest.mark.parametrize("inside", [True, False])
async def test_a_waiting_source_is_interrupted(inside: bool) -> None:
    """
    By the timeout, which counts from the first step; and closed, in the consumer's task, shielded.
    """
    source = Source(pause=2, closing=5)
    items: list[int] = []
    operation = Cancelable(timeout=3)
    await sleep(50)
    start = anyio.current_time()

    with pytest.raises(TimeoutCancelation, match="timed out after 3 seconds"):
        if inside:
            async with operation:
                async for item in operation.stream(source):
                    items.append(item)
        else:
            async for item in operation.stream(source):
                items.append(item)

    assert items == [1]
    assert anyio.current_time() - start == 3 + 5
    assert source.closed_by == [here()]
    assert source.has_ended
    await assert_nothing_is_armed(operation.token)


async def test_a_token_interrupts_a_waiting_source() -> None:
    """
    The error says what the canceller said, and the stream is over then.
    """
    token = CancelationToken()
    source = Source(pause=1000)
    start = anyio.current_time()

    async def cancel() -> None:
        await sleep(1)
        token.cancel(CancelationReason.MANUAL, "enough")

    stream = cancelable_stream(source, token=token, name="lines")
    async with create_task_group() as group:
        group.start_soon(cancel)
        with pytest.raises(ManualCancelation, match="lines: enough"):
            await stream.__anext__()

    assert anyio.current_time() - start == 1
    assert stream.cancelable.is_cancelled
    assert [item async for item in stream] == []
    await assert_nothing_is_armed(token)


async def test_an_operation_in_another_task_interrupts_a_stream() -> None:
    """
    The stream need not run in the operation's block, and does not cancel it either.
    """
    source = Source(pause=1000)

    async def consume(operation: Cancelable) -> None:
        with pytest.raises(ManualCancelation):
            async for _ in operation.stream(source):
                pass

    async with create_task_group() as group:
        operation = Cancelable()
        group.start_soon(consume, operation)
        await sleep(1)
        with pytest.raises(ManualCancelation):
            async with operation:
                await sleep(1)
                operation.cancel()
                await sleep_forever()

    assert source.has_ended
    await assert_nothing_is_armed(operation.token)


async def test_a_cancelation_reaches_all_tasks_that_go_through_one_stream() -> None:
    """
    A stream belongs to one task at a time; but if there are two, none of them must wait for ever.
    """
    operation = Cancelable()
    stream = operation.stream(Source(pause=1000))
    stopped: list[object] = []

    async def consume() -> None:
        with pytest.raises(ManualCancelation):
            await anext(stream)
        stopped.append(operation.cancelation)

    async with create_task_group() as tasks:
        tasks.start_soon(consume)
        tasks.start_soon(consume)
        await wait_all_tasks_blocked()
        operation.cancel()

    assert stopped == [operation.cancelation] * 2


async def test_a_cancelled_operation_fetches_nothing() -> None:
    """
    But the source is closed all the same.
    """
    token = CancelationToken()
    token.cancel()
    source, other = Source(pause=0), Source(pause=0)

    with pytest.raises(ManualCancelation):
        await cancelable_stream(source, token=token).__anext__()
    with pytest.raises(ManualCancelation):
        await Cancelable.with_token(token).stream(other).__anext__()

    assert source.fetched == other.fetched == 0
    assert source.has_ended
    assert other.has_ended


async def test_an_operation_that_has_ended_goes_through_nothing() -> None:
    """
    Nobody would stop it.
    """
    async with Cancelable() as operation:
        pass
    source = Source()

    with pytest.raises(LifecycleError, match="takes up no more work"):
        await operation.stream(source).__anext__()

    assert source.has_ended


async def test_time_passes_while_the_consumer_works() -> None:
    """
    The consumer is not interrupted; the next step is, at once.
    """
    source = Source(pause=1)
    items: list[int] = []

    with pytest.raises(TimeoutCancelation):
        async for item in cancelable_stream(source, timeout=3):
            await sleep(10)
            items.append(item)

    assert items == [1]
    assert source.fetched == 1


@pytest.mark.parametrize("inside", [True, False])
async def test_a_source_that_never_waits_is_interrupted(inside: bool) -> None:
    """
    Each step is a checkpoint, so that others get to run.
    """

    async def busy() -> AsyncIterator[int]:
        while True:
            yield 1

    token = CancelationToken()
    operation = Cancelable.with_token(token)

    async def consume() -> None:
        with pytest.raises(ManualCancelation):
            if inside:
                async with operation:
                    async for _ in operation.stream(busy()):
                        pass
            else:
                async for _ in operation.stream(busy()):
                    pass

    async with create_task_group() as group:
        group.start_soon(consume)
        for _ in range(5):
            await checkpoint()
        token.cancel()


async def test_a_cancelation_from_outside_passes_through() -> None:
    """
    It is not the stream's; the source is closed within the shield.
    """
    token = CancelationToken()
    source = Source(pause=1000, closing=2)
    stream = cancelable_stream(source, token=token, timeout=5000)
    start = anyio.current_time()

    with move_on_after(1) as scope:
        await stream.__anext__()

    assert scope.cancelled_caught
    assert source.has_ended
    assert anyio.current_time() - start == 3
    assert not stream.cancelable.is_cancelled
    await assert_nothing_is_armed(token)


async def test_a_stream_may_end_quietly() -> None:
    """
    As a block may.
    """
    stream = cancelable_stream(numbers(), timeout=2.5, raise_on_cancel=False)

    assert [item async for item in stream] == [1, 2]
    assert stream.cancelable.cancelation is not None
    assert stream.cancelable.cancelation.reason is CancelationReason.TIMEOUT


async def test_the_operation_is_the_current_one_in_the_source() -> None:
    """
    Only there: not in the consumer's code.
    """
    seen: list[Any] = []

    async def source() -> AsyncIterator[int]:
        seen.append(current_operation())
        with pytest.raises(TimeoutCancelation):
            async with Cancelable(timeout=1) as inner:
                async for _ in inner.stream(numbers(pause=5)):
                    pass
        yield 1

    stream = cancelable_stream(source(), timeout=10)
    async for _ in stream:
        seen.append(current_operation())

    assert seen == [stream.cancelable, None]


async def test_parents_hold_for_streams() -> None:
    """
    The deadline of a parent, too, and over all steps.
    """
    items: list[int] = []

    async def consume(parent: Cancelable) -> None:
        with pytest.raises(ParentCancelation):
            async for item in cancelable_stream(numbers(), parent=parent):
                items.append(item)

    async with create_task_group() as group:
        with pytest.raises(TimeoutCancelation):
            async with Cancelable(timeout=4.5) as parent:
                group.start_soon(consume, parent)
                await sleep_forever()

    assert items == [1, 2, 3, 4]


async def test_a_shielded_stream_goes_on() -> None:
    """
    In a shielded section of its operation, a stream is not interrupted.
    """
    with pytest.raises(ManualCancelation):
        async with Cancelable() as operation:
            operation.cancel()
            async with operation.shield():
                items = [item async for item in operation.stream(numbers(3))]
            await checkpoint()

    assert items == [1, 2, 3]


# --- Left early


@pytest.mark.parametrize("inside", [True, False])
async def test_a_break_leaves_nothing_armed(inside: bool) -> None:
    """
    Breaking out of a stream with a timeout cancels no later code.
    """
    token = CancelationToken()
    operation = Cancelable(timeout=5, tokens=[token])
    source = Source()
    if inside:
        async with operation:
            async for _ in operation.stream(source):
                break
    else:
        async for _ in cancelable_stream(source, timeout=5, token=token):
            break

    await assert_nothing_is_armed(token)
    token.cancel()
    await assert_nothing_is_armed(token)


@pytest.mark.parametrize("how", ["break", "error", "cancel"])
async def test_a_stream_in_a_with_block_is_closed(how: str) -> None:
    """
    However the loop is left, by the same task, shielded.
    """
    source = Source(closing=3)
    with move_on_after(1.5), pytest.raises(ZeroDivisionError) if how == "error" else CancelScope():
        async with cancelable_stream(source) as items:
            async for _ in items:
                if how == "error":
                    raise ZeroDivisionError
                if how == "break":
                    break
                await sleep_forever()

    assert source.closed_by == [here()]
    assert source.has_ended


async def test_closing_is_bounded() -> None:
    """
    A source that does not close is given up, and that is said. Closing twice does nothing.
    """
    source = Source(closing=1000)
    stream = cancelable_stream(source)
    start = anyio.current_time()

    with pytest.raises(TimeoutError, match="was not closed within its 10 seconds"):
        await stream.aclose()
    await stream.aclose()

    assert anyio.current_time() - start == 10
    assert len(source.closed_by) == 1
    assert [item async for item in stream] == []


async def test_a_generator_that_was_begun_is_finished() -> None:
    """
    Its cleanup runs when the stream is closed, not when it is collected.
    """
    steps: list[str] = []

    async def source() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await sleep(1)
            steps.append("cleanup")

    async with cancelable_stream(source(), timeout=10) as items:
        await items.__anext__()

    assert steps == ["cleanup"]


async def test_a_step_that_is_thrown_away_waits_for_nothing() -> None:
    """
    A coroutine that is closed cannot wait; nothing stays behind.
    """
    token = CancelationToken()
    stream = cancelable_stream(Source(), token=token)
    step: Any = stream.__anext__()

    async def other_task() -> None:
        trap = step.send(None)  # it waits now
        assert trap is None or trap
        step.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hother.cancelable._iteration.checkpoint", _Pausing)
        await other_task()

    await assert_nothing_is_armed(token)


class _Pausing:
    """Waits for ever, without an event loop's help."""

    def __await__(self) -> Any:
        yield True


# --- Nothing is lost


@pytest.mark.parametrize("inside", [True, False])
async def test_a_fetched_item_is_never_dropped(inside: bool) -> None:
    """
    A cancel that comes while the source finishes an item takes effect at the next step.
    """
    operation = Cancelable()

    async def source() -> AsyncIterator[int]:
        for number in (1, 2, 3):
            await checkpoint()
            if number == 2:
                operation.cancel()
            yield number

    items: list[int] = []
    with pytest.raises(ManualCancelation):
        if inside:
            async with operation:
                async for item in operation.stream(source()):
                    items.append(item)
        else:
            async for item in operation.stream(source()):
                items.append(item)

    assert items == [1, 2]


@pytest.mark.parametrize("own", [True, False], ids=["its token", "from outside"])
@pytest.mark.parametrize("inside", [True, False])
async def test_a_cancelation_at_any_checkpoint_loses_nothing_and_leaves_nothing(
    own: bool, inside: bool
) -> None:
    """
    Wherever it strikes: what was fetched was handed over, the source is closed, nothing listens.
    """
    token = CancelationToken()
    source, operation, items = Source(), Cancelable(), list[int]()

    async def consume() -> None:
        nonlocal source, operation, items
        source, items = Source(3, closing=1), []
        operation = Cancelable.with_token(token).on_progress(lambda *_: sleep(1))
        async with operation if inside else nullcontext():
            async for item in operation.stream(source, report_interval=1):
                items.append(item)

    def check() -> None:
        assert source.fetched == len(items)
        assert source.has_ended
        assert token.statistics().callbacks == operation.token.statistics().callbacks == 0

    if own:
        checkpoints = await sweep(
            consume, cancel=lambda: operation.cancel(), raises=ManualCancelation, check=check
        )
    else:
        # A native Task.cancel() pierces the shield of the closing, if that is what waits.
        checkpoints = await sweep(consume, how=("scope", "operation"), check=check)

    assert len(checkpoints) > 8
    await assert_nothing_is_armed(token)


async def test_partial_results_survive_a_cancel_while_the_consumer_works() -> None:
    """
    The stream still has them, and no more of them than was asked for.
    """
    token = CancelationToken()
    stream = cancelable_stream(numbers(), token=token, buffer_partial=True)
    with pytest.raises(ManualCancelation):
        async for item in stream:
            if item == 5:
                token.cancel()

    assert stream.partial == [1, 2, 3, 4, 5]

    bounded = cancelable_stream(numbers(5000, pause=0), buffer_partial=True)
    async for _ in bounded:
        pass

    assert bounded.partial == list(range(4001, 5001))
    assert bounded.count == 5000


async def test_nothing_is_kept_that_nobody_asked_for() -> None:
    """
    Without ``buffer_partial`` there are no partial results.
    """
    stream = cancelable_stream(numbers(3))

    assert [item async for item in stream] == [1, 2, 3]
    assert stream.partial == []


async def test_a_stream_outside_the_block_of_an_operation_with_sources_is_refused() -> None:
    """
    Nobody would wait for them. Inside the block, they interrupt the stream.
    """
    outside = Source()
    with pytest.raises(LifecycleError, match="enter it"):
        async for _ in Cancelable(sources=[TimeoutSource(1)]).stream(outside):
            pass

    assert outside.has_ended

    with pytest.raises(TimeoutCancelation):
        async with Cancelable(sources=[TimeoutSource(1)]) as operation:
            async for _ in operation.stream(Source()):
                await anyio.sleep(0.4)


async def test_a_forgotten_stream_is_collected() -> None:
    """
    A token that lives on keeps no stream alive.
    """
    token = CancelationToken()
    alive: WeakSet[object] = WeakSet()
    for _ in range(100):
        stream = cancelable_stream(Source(), token=token, timeout=10)
        alive.add(stream)
        async for _item in stream:
            break
    del stream
    await checkpoint()  # Trio remembers the frame that was the last to wait
    gc.collect()

    assert not alive
    assert token.statistics().callbacks == 0


# --- Progress


@pytest.mark.parametrize("inside", [True, False])
async def test_progress_is_reported_every_so_many_items(inside: bool) -> None:
    """
    After the consumer is done with them.
    """
    heard: list[tuple[Any, ...]] = []

    def on_progress(id: str, message: Any, metadata: Any) -> None:
        heard.append((id, message, dict(metadata)))

    if inside:
        async with Cancelable().on_progress(on_progress) as operation:
            async for _ in operation.stream(numbers(5), report_interval=2):
                pass
    else:
        stream = cancelable_stream(numbers(5), report_interval=2, on_progress=on_progress)
        async for _ in stream:
            pass
        operation = stream.cancelable

    assert heard == [(operation.id, f"{count} items", {"count": count}) for count in (2, 4)]


# --- Chunks


async def test_items_come_in_chunks() -> None:
    """
    Only the last one may be shorter.
    """
    async with chunked_cancelable_stream(numbers(5), 2, timeout=10) as chunks:
        assert [chunk async for chunk in chunks] == [[1, 2], [3, 4], [5]]
    assert [chunk async for chunk in chunked_cancelable_stream(numbers(4), 2)] == [[1, 2], [3, 4]]


async def test_a_chunk_is_cut_short_rather_than_lost() -> None:
    """
    What was fetched comes first, then the error.
    """
    token = CancelationToken()
    chunks = chunked_cancelable_stream(numbers(), 3, timeout=4.5, token=token)

    assert await chunks.__anext__() == [1, 2, 3]
    assert await chunks.__anext__() == [4]
    with pytest.raises(TimeoutCancelation):
        await chunks.__anext__()
    with pytest.raises(StopAsyncIteration):
        await chunks.__anext__()

    assert chunks.cancelable.is_cancelled
    await assert_nothing_is_armed(token)


async def test_a_chunk_interrupted_from_outside_can_still_be_had() -> None:
    """
    The cancelation passes at once, and what was fetched comes with the next step.
    """
    operation = Cancelable()
    chunks = chunked_cancelable_stream(numbers(), 3, operation)

    with move_on_after(2.5) as scope:
        await chunks.__anext__()

    assert scope.cancelled_caught
    assert chunks.cancelable is operation
    assert chunks.gathered == [1, 2]
    assert [chunk async for chunk in chunks] == [[1, 2]]


# --- Mistakes


def test_wrong_arguments_are_refused() -> None:
    """
    Where they are made, and in words.
    """
    source = Source()
    wrong: Any = [1, 2]
    with pytest.raises(TypeError, match="a stream goes through an async iterable"):
        cancelable_stream(wrong)
    with pytest.raises(TypeError, match="cancelable must be a Cancelable"):
        CancelableAsyncIterator(source, wrong)
    with pytest.raises(TypeError, match="either an operation, or a timeout"):
        chunked_cancelable_stream(source, 2, Cancelable(), timeout=1)
    for number in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="chunk_size must be a positive number of items"):
            chunked_cancelable_stream(source, number)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="report_interval must be a positive"):
        cancelable_stream(source, report_interval=0)
    with pytest.raises(ValueError, match="buffer_partial must be a positive"):
        cancelable_stream(source, buffer_partial=0)
    with pytest.raises(ValueError, match="timeout must not be negative"):
        cancelable_stream(source, timeout=-1)


async def test_a_stream_before_its_operation_is_entered() -> None:
    """
    It finds the block at its first step; and a stream's own operation has no other block.
    """
    operation = Cancelable(timeout=2.5)
    stream = operation.stream(numbers())
    assert "open, 0 items" in repr(stream)
    assert stream.cancelable is operation
    with pytest.raises(TimeoutCancelation):
        async with operation:
            async for _ in stream:
                pass
    assert operation.status is OperationStatus.CANCELLED

    own = cancelable_stream(numbers(1), timeout=2)
    async for _ in own:
        pass
    with pytest.raises(LifecycleError, match="was entered already"):
        async with own.cancelable:
            pass
    await wait_all_tasks_blocked()
