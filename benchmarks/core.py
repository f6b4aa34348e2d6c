"""What the core costs, beside AnyIO's own primitives in the same run, on each event loop.

``python -m benchmarks.core`` or ``nox -s benchmarks -- core``; ``--json FILE`` keeps the figures, and
``--quick`` has fewer rounds, not more than 10,000 waiting, and no uvloop.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from importlib.util import find_spec
from time import perf_counter
from typing import Any
from weakref import ref

import anyio
from anyio import CancelScope, create_task_group, move_on_after, sleep_forever, to_thread
from anyio.lowlevel import checkpoint, current_token

from hother.cancelable import Cancelable, CancelationToken

from ._ratios import Figure, figure, quiet, report

IS_QUICK = "--quick" in sys.argv
ROUNDS = 7 if IS_QUICK else 15
NUMBER = 2_000 if IS_QUICK else 3_000
FAN_OUT = (1, 10, 100, 1_000, 10_000) if IS_QUICK else (1, 10, 100, 1_000, 10_000, 100_000)

Timed = Callable[[], Awaitable[float]]


# --- Plain calls


def per_call(function: Callable[[], object], number: int = 20 * NUMBER) -> float:
    """The seconds that one call takes."""
    calls = range(number)
    start = perf_counter()
    for _ in calls:
        function()
    return (perf_counter() - start) / number


def beside(
    name: str, floor_name: str, ours: Callable[[], object], floor: Callable[[], object], target: float | None
) -> Figure:
    return figure(name, floor_name, "any", [(per_call(ours), per_call(floor)) for _ in range(ROUNDS)], target)


def set_event() -> None:
    anyio.Event().set()


def cancel_token() -> None:
    CancelationToken().cancel()


def token_figures() -> list[Figure]:
    token, flag = CancelationToken(), threading.Event()
    crowded = CancelationToken()
    crowd = [crowded.child() for _ in range(100_000)]
    figures = [
        beside("token creation", "anyio.Event()", CancelationToken, anyio.Event, 1.0),
        beside("token creation and cancel", "anyio.Event() and set()", cancel_token, set_event, None),
        beside("token.check()", "threading.Event.is_set()", token.check, flag.is_set, 1.5),
        beside("link and unlink", "the token alone", token.child, CancelationToken, None),
        beside("link and unlink, beside 100,000", "on an empty token", crowded.child, token.child, 1.5),
    ]
    del crowd
    return figures


# --- Blocks


def repeated(block: Callable[[], Awaitable[None]]) -> Timed:
    async def run() -> float:
        rounds = range(NUMBER)
        start = perf_counter()
        for _ in rounds:
            await block()
        return (perf_counter() - start) / NUMBER

    return run


async def scope_block() -> None:
    with CancelScope():  # noqa: ASYNC100
        pass


async def operation_block() -> None:
    async with Cancelable():
        pass


async def move_on_after_block() -> None:
    with move_on_after(30):  # noqa: ASYNC100
        pass


async def asyncio_timeout_block() -> None:
    async with asyncio.timeout(30):  # type: ignore[attr-defined]  # noqa: ASYNC100
        pass


async def timeout_block() -> None:
    async with Cancelable(timeout=30):
        pass


class Contract:
    """What any operation has to do, and nothing else: the floor of what ours can cost.

    It has a token of its own, which stops its scope, and it is the current operation in its block, to whom
    nothing but the block itself holds on. It knows no status, deadline, time, thread, error or observer.
    """

    def __init__(self) -> None:
        self.token = CancelationToken()

    async def __aenter__(self) -> None:
        self.scope = CancelScope()
        self.scope.__enter__()
        self.around = _around.get()
        _around.set((ref(self), *self.around))
        self.remove_callback = self.token.add_callback(self.cancel)

    async def __aexit__(self, *exc: Any) -> bool:
        self.remove_callback()
        _around.set(self.around)
        return self.scope.__exit__(*exc)

    def cancel(self, _: object) -> None:  # noqa: D102
        self.scope.cancel()


_around: ContextVar[tuple[ref[Contract], ...]] = ContextVar("around", default=())


async def contract_block() -> None:
    async with Contract():
        pass


TOKEN = CancelationToken()


async def token_block() -> None:
    async with Cancelable(tokens=(TOKEN,)):
        pass


# --- Fan-out: one cancel, n waiting


async def cancel_operations(n: int) -> float:
    token = CancelationToken()

    async def wait() -> None:
        async with Cancelable(tokens=(token,), raise_on_cancel=False):
            await sleep_forever()

    return await until_all_ended(n, wait, token.cancel)


async def cancel_scopes(n: int) -> float:
    scopes: list[CancelScope] = []

    async def wait() -> None:
        with CancelScope() as scope:
            scopes.append(scope)
            await sleep_forever()

    def cancel() -> None:
        for scope in scopes:
            scope.cancel()

    return await until_all_ended(n, wait, cancel)


async def until_all_ended(n: int, wait: Callable[[], Awaitable[None]], cancel: Callable[[], object]) -> float:
    quiet()
    async with create_task_group() as tasks:
        for _ in range(n):
            tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        start = perf_counter()
        cancel()
    return perf_counter() - start


# --- Wake-ups from threads


async def token_from_thread() -> float:
    token = CancelationToken()
    return await woken_by_thread(token.cancel, token.wait)


async def native_from_thread() -> float:
    native: Any = current_token().native_token
    schedule = getattr(native, "run_sync_soon", None) or native.call_soon_threadsafe
    event = anyio.Event()
    return await woken_by_thread(lambda: schedule(event.set), event.wait)


async def woken_by_thread(wake: Callable[[], object], wait: Callable[[], Awaitable[object]]) -> float:
    called = woken = 0.0
    is_waiting = threading.Event()

    def thread() -> None:
        nonlocal called
        is_waiting.wait()
        called = perf_counter()
        wake()

    async def waiter() -> None:
        nonlocal woken
        await wait()
        woken = perf_counter()

    async with create_task_group() as tasks:
        tasks.start_soon(to_thread.run_sync, thread)
        tasks.start_soon(waiter)
        await anyio.wait_all_tasks_blocked()
        is_waiting.set()
    return woken - called


async def median_of(timed: Timed, times: int = 9 if IS_QUICK else 50) -> float:
    values = sorted([await timed() for _ in range(times)])
    return values[times // 2]


# --- Streams


async def busy_source() -> AsyncIterator[int]:
    for number in range(NUMBER):
        yield number


async def waiting_source() -> AsyncIterator[int]:
    for number in range(NUMBER):
        await checkpoint()
        yield number


async def bare_loop(source: AsyncIterator[int]) -> float:
    start = perf_counter()
    async for _ in source:
        pass
    return (perf_counter() - start) / NUMBER


async def stream_loop(source: AsyncIterator[int]) -> float:
    async with Cancelable() as operation:
        return await bare_loop(operation.stream(source))


async def outside_stream_loop(source: AsyncIterator[int]) -> float:
    return await bare_loop(Cancelable().stream(source))


async def side_by_side(
    name: str,
    floor_name: str,
    where: str,
    ours: Timed,
    floor: Timed,
    target: float | None = None,
    rounds: int = ROUNDS,
) -> Figure:
    await ours(), await floor()  # warm up
    return figure(name, floor_name, where, [(await ours(), await floor()) for _ in range(rounds)], target)


async def figures_on(where: str) -> list[Figure]:
    scope, operation = repeated(scope_block), repeated(operation_block)
    move_on, timeout = repeated(move_on_after_block), repeated(timeout_block)
    figures = [
        await side_by_side("Cancelable", "CancelScope", where, operation, scope, 2.0),
        await side_by_side("Cancelable(timeout)", "move_on_after", where, timeout, move_on, 2.0),
        await side_by_side("Cancelable(tokens)", "CancelScope", where, repeated(token_block), scope),
        await side_by_side("the contract alone", "CancelScope", where, repeated(contract_block), scope),
        await side_by_side("Cancelable", "the contract alone", where, operation, repeated(contract_block)),
    ]
    if where != "trio" and hasattr(asyncio, "timeout"):
        native = repeated(asyncio_timeout_block)
        figures.append(await side_by_side("Cancelable(timeout)", "asyncio.timeout", where, timeout, native))
    for n in FAN_OUT:
        rounds = max(3, min(ROUNDS, 100_000 // n))
        figures.append(
            await side_by_side(
                f"one cancel, {n:,} waiting",
                "each scope by hand",
                where,
                lambda n=n: cancel_operations(n),
                lambda n=n: cancel_scopes(n),
                1.3,
                rounds,
            )
        )
    figures += [
        await side_by_side(
            "cancel in a thread to woken task",
            "the loop's own call",
            where,
            lambda: median_of(token_from_thread),
            lambda: median_of(native_from_thread),
            rounds=5,
        ),
        await side_by_side(
            "stream(), a source that waits",
            "async for",
            where,
            lambda: stream_loop(waiting_source()),
            lambda: bare_loop(waiting_source()),
            2.0,
        ),
        await side_by_side(
            "stream(), a source that never waits",
            "async for",
            where,
            lambda: stream_loop(busy_source()),
            lambda: bare_loop(busy_source()),
        ),
        await side_by_side(
            "stream() outside the block",
            "async for",
            where,
            lambda: outside_stream_loop(waiting_source()),
            lambda: bare_loop(waiting_source()),
        ),
    ]
    return figures


def main() -> None:
    figures = token_figures()
    figures += anyio.run(figures_on, "asyncio", backend="asyncio")
    if find_spec("uvloop") and not IS_QUICK:
        figures += anyio.run(figures_on, "uvloop", backend_options={"use_uvloop": True})
    with suppress(ImportError):
        figures += anyio.run(figures_on, "trio", backend="trio")
    report("the core", figures, "Each ratio is the median of rounds in which both sides took turns.")


if __name__ == "__main__":
    main()
