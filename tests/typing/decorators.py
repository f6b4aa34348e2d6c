"""What type checkers see of decorated functions, streams and threads. Checked, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator

from typing_extensions import assert_type

from hother.cancelable import (
    Cancelable,
    CancelableAsyncIterator,
    CancelationToken,
    cancelable,
    cancelable_combine,
    cancelable_method,
    cancelable_stream,
    cancelable_with_condition,
    cancelable_with_signal,
    cancelable_with_token,
    chunked_cancelable_stream,
    with_cancelable,
    with_current_operation,
    with_timeout,
)


@cancelable
async def bare(a: int, *, b: str = "") -> bytes:
    return b""


@cancelable(timeout=5, name="called")
async def called(a: int, *, b: str = "") -> bytes:
    return b""


@cancelable
async def injected(cancelable: Cancelable, a: int, *, b: str = "") -> bytes:
    return b""


@cancelable(timeout=5)
async def injected_by_call(cancelable: Cancelable, a: int, *, b: str = "") -> bytes:
    return b""


@cancelable(timeout=5)
async def optional(cancelable: Cancelable | None = None) -> bytes:
    return b""


@cancelable
async def anything(a: object) -> bytes:
    return b""


@cancelable()
async def anything_by_call(a: object, b: int) -> bytes:
    return b""


@cancelable
async def by_keyword(a: int, *, cancelable: Cancelable | None = None) -> bytes:
    return b""


@cancelable(timeout=5)
async def generator(cancelable: Cancelable, a: int) -> AsyncIterator[bytes]:
    yield b""


@cancelable
async def bare_generator(a: int) -> AsyncIterator[bytes]:
    yield b""


class Service:
    @cancelable_method
    async def bare(self, a: int) -> bytes:
        return b""

    @cancelable_method
    async def injected(self, cancelable: Cancelable, a: int) -> bytes:
        return b""

    @cancelable_method(timeout=5)
    async def by_call(self, cancelable: Cancelable, a: int) -> bytes:
        return b""

    @cancelable_method(timeout=5)
    async def anything(self, a: object) -> bytes:
        return b""

    @cancelable_method
    async def items(self, cancelable: Cancelable, a: int) -> AsyncIterator[bytes]:
        yield b""

    @cancelable(timeout=5)
    async def plain(self, a: int) -> bytes:
        return b""


@cancelable_with_token(CancelationToken())
async def with_token(cancelable: Cancelable, a: int) -> bytes:
    return b""


@cancelable_with_signal(2, 15, name="called")
async def with_signal(cancelable: Cancelable, a: int) -> bytes:
    return b""


@cancelable_with_condition(lambda: False, 0.5, name="called")
async def with_condition(cancelable: Cancelable, a: int) -> bytes:
    return b""


@cancelable_combine(Cancelable(), Cancelable())
async def combined(a: int) -> bytes:
    return b""


@with_cancelable(Cancelable())
async def given(cancelable: Cancelable, a: int) -> bytes:
    return b""


@with_current_operation
def current(operation: Cancelable, a: int) -> bytes:
    return b""


@with_current_operation()
async def current_by_call(a: int, *, operation: Cancelable | None = None) -> bytes:
    return b""


async def functions() -> None:
    assert_type(await bare(1, b="b"), bytes)
    assert_type(await called(1, b="b"), bytes)
    assert_type(await injected(1, b="b"), bytes)
    assert_type(await injected_by_call(1, b="b"), bytes)
    assert_type(await optional(), bytes)
    assert_type(await anything(1), bytes)
    assert_type(await anything_by_call(1, 2), bytes)
    assert_type(await by_keyword(1), bytes)
    assert_type(await by_keyword(1, cancelable=Cancelable()), bytes)
    assert_type(await with_token(1), bytes)
    assert_type(await with_signal(1), bytes)
    assert_type(await with_condition(1), bytes)
    assert_type(await combined(1), bytes)
    assert_type(await given(1), bytes)
    assert_type(current(1), bytes)
    assert_type(await current_by_call(1), bytes)

    await bare("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await injected("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await injected_by_call()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await with_token("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    current("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await anything()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    cancelable(timeout="5")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


async def methods(service: Service) -> None:
    assert_type(await service.bare(1), bytes)
    assert_type(await service.injected(1), bytes)
    assert_type(await service.by_call(1), bytes)
    assert_type(await service.anything(1), bytes)
    assert_type(await service.plain(1), bytes)
    assert_type(service.items(1), CancelableAsyncIterator[bytes])

    await service.injected("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await service.by_call("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def streams(source: AsyncIterator[bytes], operation: Cancelable) -> None:
    assert_type(generator(1), CancelableAsyncIterator[bytes])
    assert_type(bare_generator(1), CancelableAsyncIterator[bytes])
    assert_type(operation.stream(source), CancelableAsyncIterator[bytes])
    async with cancelable_stream(source, timeout=5, name="stream") as items:
        async for item in items:
            assert_type(item, bytes)
    async for chunk in chunked_cancelable_stream(source, 5):
        assert_type(chunk, "list[bytes]")
    cancelable_stream(source, nam3="stream")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def threads(operation: Cancelable) -> None:
    def function(a: int, *, b: str) -> bytes:
        return b""

    async def wrapped(a: int) -> bytes:
        return b""

    assert_type(await operation.run_in_thread(function, 1, b="b"), bytes)
    assert_type(await operation.run_in_thread(function, 1, b="b", abandon_on_cancel=True), bytes)
    assert_type(await operation.wrap(wrapped)(1), bytes)
    assert_type(await with_timeout(5, wrapped(1)), bytes)
    await operation.wrap(wrapped)("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
