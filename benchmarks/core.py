"""What the core costs, beside AnyIO's own primitives in the same run, on each event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from importlib.util import find_spec
from time import perf_counter
from typing import Any
from weakref import ref

import anyio
from anyio import CancelScope, create_task_group, move_on_after, sleep_forever, to_thread
from anyio.lowlevel import EventLoopToken, checkpoint, current_token

from hother.cancelable import Cancelable, Cancelation, CancelationToken
from hother.cancelable._core._token import Listener
from hother.cancelable._core._wakeup import CallSite, call_soon, current_place

from ._fan_out import fan_out, until_all_ended
from ._figures import Figure, at_most
from ._plan import Plan
from ._turns import Timed, calls_beside, side_by_side

LOOPS: dict[str, dict[str, Any]] = {
    "asyncio": {"backend": "asyncio"},
    "trio": {"backend": "trio"},
    "uvloop": {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
}

NUMBER = 2_000
"""How often a block is entered, and how many items a stream has, in each round."""


def run(plan: Plan) -> Iterator[Figure]:
    """Measure."""
    if not plan.where:
        yield from token_figures(plan)
    for where in plan.places(("asyncio", "trio", *plan.pick(full=("uvloop",), quick=(), tiny=()))):
        if find_spec(where):
            yield from anyio.run(figures_on, where, plan, **LOOPS[where])


async def figures_on(where: str, plan: Plan) -> list[Figure]:
    """Measure on one event loop."""
    parts = (block_figures(where, plan), fan_out(where, plan, cancel_contracts), thread_figures(where, plan))
    return [it for part in (*parts, stream_figures(where, plan)) async for it in part]


def rounds_of(plan: Plan) -> int:
    return plan.pick(full=15, quick=7, tiny=1)


# --- Plain calls


def set_event() -> None:
    anyio.Event().set()


def cancel_token() -> None:
    CancelationToken().cancel()


def token_figures(plan: Plan) -> Iterator[Figure]:
    token, flag = CancelationToken(), threading.Event()
    effort = {"rounds": rounds_of(plan), "calls": plan.pick(full=50_000, quick=30_000, tiny=100)}
    new, event = ("CancelationToken()", CancelationToken), ("anyio.Event()", anyio.Event)
    yield calls_beside("a token: creation", new, event, target=at_most(1.0), **effort)
    cancel, set_it = ("CancelationToken().cancel()", cancel_token), ("anyio.Event().set()", set_event)
    yield calls_beside("a token: creation and cancel", cancel, set_it, **effort)
    check, is_set = ("token.check()", token.check), ("threading.Event.is_set()", flag.is_set)
    yield calls_beside(
        "a token: looking whether it is cancelled", check, is_set, target=at_most(1.5), **effort
    )
    yield calls_beside("a token: link and unlink", ("token.child()", token.child), new, **effort)


# --- Blocks


def repeated(block: Callable[[], Awaitable[None]], number: int) -> Timed:
    async def run() -> float:
        rounds = range(number)
        start = perf_counter()
        for _ in rounds:
            await block()
        return (perf_counter() - start) / number

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


class Contract(Listener):
    """What any operation has to do, and nothing else: the floor of what ours can cost.

    It has a token of its own, which stops its scope, whatever thread or signal handler cancels it; and it is
    the current operation in its block, to whom nothing but the block itself holds on. It knows no status,
    deadline, time, error or observer.
    """

    def __init__(self, timeout: float | None = None, follows: CancelationToken | None = None) -> None:
        self.token = CancelationToken()
        self.timeout = timeout
        self.follows = follows

    async def __aenter__(self) -> None:
        self.runtime, self.loop, _, _, _ = current_place()
        self.scope = CancelScope() if self.timeout is None else move_on_after(self.timeout)
        self.scope.__enter__()
        self.is_open = True
        self.around = _around.get()
        _around.set(ref(self) if self.around is None else (ref(self), self.around))
        self.token._belong_to(self)
        if self.follows is not None:
            self.follows._listen(self)

    async def __aexit__(self, *exc: Any) -> bool:
        self.token._leave(self)
        if self.follows is not None:
            self.follows._remove_callback(self)
        self.is_open = False  # which is why a single one may stay the current one
        if self.around is not None:
            _around.set(self.around)
        return self.scope.__exit__(*exc)

    def hear(self, cause: Cancelation, site: CallSite) -> None:
        """Stop for *cause*, if it is news."""
        if self.token._cancel_by(self, cause, site):
            if site.is_in(self.loop):
                if self.runtime.cancel is None:
                    self.scope.cancel()
                else:
                    self.runtime.cancel(self.scope, "")
            else:
                call_soon(EventLoopToken(self.runtime.backend, self.loop), self.scope.cancel)


_around: ContextVar[Any] = ContextVar("around", default=None)  # innermost first: a reference, and the rest


async def contract_block() -> None:
    async with Contract():
        pass


async def timed_contract_block() -> None:
    async with Contract(30):
        pass


async def cancel_contracts(n: int) -> float:
    """Return how many seconds a token takes that cancels those of so many operations."""
    token = CancelationToken()

    async def wait() -> None:
        async with Contract(follows=token):
            await sleep_forever()

    return await until_all_ended(n, wait, token.cancel)


TOKEN = CancelationToken()


async def token_block() -> None:
    async with Cancelable(tokens=(TOKEN,)):
        pass


PLAIN = "a block: enter and exit"
TIMED = "a block with a timeout: enter and exit"


async def block_figures(where: str, plan: Plan) -> AsyncIterator[Figure]:
    number, rounds = plan.pick(full=NUMBER, quick=NUMBER, tiny=10), rounds_of(plan)

    async def beside(
        subject: str, candidate: tuple[str, Any], floor: tuple[str, Any], limit: float | None = None
    ) -> Figure:
        ours, other = ((name, repeated(block, number)) for name, block in (candidate, floor))
        target = None if limit is None else at_most(limit)
        bound = "" if limit is None else CONTRACT[0]
        return await side_by_side(subject, where, ours, other, rounds=rounds, target=target, bound=bound)

    scope, operation = ("CancelScope()", scope_block), ("Cancelable()", operation_block)
    timed = ("Cancelable(timeout=30)", timeout_block)
    yield await beside(PLAIN, operation, scope, 2.0)
    yield await beside(PLAIN, CONTRACT, scope)
    yield await beside("a block beside the contract alone", operation, CONTRACT)
    move_on = ("move_on_after(30)", move_on_after_block)
    yield await beside(TIMED, timed, move_on, 2.0)
    yield await beside(TIMED, (CONTRACT[0], timed_contract_block), move_on)
    if where != "trio" and hasattr(asyncio, "timeout"):
        yield await beside(TIMED, timed, ("asyncio.timeout(30)", asyncio_timeout_block))
    yield await beside("a block with a token: enter and exit", ("Cancelable(tokens=…)", token_block), scope)


CONTRACT = ("the contract alone", contract_block)


# --- Wake-ups from threads


async def token_from_thread() -> float:
    token = CancelationToken()
    return await woken_by_thread(token.cancel, token.wait)


async def operation_from_thread() -> float:
    operation = Cancelable(raise_on_cancel=False)

    async def wait() -> None:
        async with operation:
            await sleep_forever()

    return await woken_by_thread(operation.cancel, wait)


async def native_from_thread() -> float:
    native: Any = current_token().native_token
    schedule = getattr(native, "run_sync_soon", None) or native.call_soon_threadsafe
    event = anyio.Event()
    return await woken_by_thread(lambda: schedule(event.set), event.wait)


async def woken_by_thread(wake: Callable[[], object], wait: Callable[[], Awaitable[object]]) -> float:
    """Return how many seconds after the call in a thread the task in the loop ran on."""
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


def median_of(timed: Timed, times: int) -> Timed:
    async def run() -> float:
        values = sorted([await timed() for _ in range(times)])
        return values[times // 2]

    return run


async def thread_figures(where: str, plan: Plan) -> AsyncIterator[Figure]:
    times, rounds = plan.pick(full=50, quick=15, tiny=3), plan.pick(full=9, quick=5, tiny=1)
    subject = "cancel in a thread, until the task in the loop runs on"
    native = ("the loop's own call, and an Event", median_of(native_from_thread, times))
    for name, timed in (("token.cancel()", token_from_thread), ("operation.cancel()", operation_from_thread)):
        yield await side_by_side(subject, where, (name, median_of(timed, times)), native, rounds=rounds)


# --- Streams


async def busy_source(number: int) -> AsyncIterator[int]:
    for each in range(number):
        yield each


async def waiting_source(number: int) -> AsyncIterator[int]:
    for each in range(number):
        await checkpoint()
        yield each


async def bare_loop(source: AsyncIterator[int], number: int) -> float:
    start = perf_counter()
    async for _ in source:
        pass
    return (perf_counter() - start) / number


async def stream_loop(source: AsyncIterator[int], number: int) -> float:
    async with Cancelable() as operation:
        return await bare_loop(operation.stream(source), number)


class ContractStream:
    """What any stream has to do: hear of a cancelation at each step, before the item and after it."""

    def __init__(self, source: AsyncIterator[int], token: CancelationToken) -> None:
        self._source = source
        self._token = token

    def __aiter__(self) -> AsyncIterator[int]:
        return self

    async def __anext__(self) -> int:
        self._token.check()
        item = await self._source.__anext__()
        self._token.check()
        return item


async def contract_stream_loop(source: AsyncIterator[int], number: int) -> float:
    return await bare_loop(ContractStream(source, CancelationToken()), number)


async def outside_stream_loop(source: AsyncIterator[int], number: int) -> float:
    return await bare_loop(Cancelable().stream(source), number)


async def by_hand_loop(source: AsyncIterator[int], number: int) -> float:
    """Do by hand what a stream does outside of a block: no scope may be open while its consumer works."""
    start = perf_counter()
    while True:
        async with Cancelable():
            try:
                await anext(source)
            except StopAsyncIteration:
                break
    return (perf_counter() - start) / number


async def stream_figures(where: str, plan: Plan) -> AsyncIterator[Figure]:
    number, rounds = plan.pick(full=NUMBER, quick=NUMBER, tiny=10), rounds_of(plan)
    inside, outside = (
        ("stream() in the block", stream_loop),
        ("stream() outside of a block", outside_stream_loop),
    )
    for kind, source, candidate, target in (
        ("a source that waits", waiting_source, inside, at_most(2.0)),
        ("a source that waits", waiting_source, (CONTRACT[0], contract_stream_loop), None),
        ("a source that never waits", busy_source, inside, None),
        ("a source that waits", waiting_source, outside, None),
        ("a source that waits", waiting_source, BY_HAND, None),
    ):
        ours = (candidate[0], _looped(candidate[1], source, number))
        bare = ("async for", _looped(bare_loop, source, number))
        subject = f"each item of a stream, {kind}"
        bound = "" if target is None else CONTRACT[0]
        yield await side_by_side(subject, where, ours, bare, rounds=rounds, target=target, bound=bound)
    ours, by_hand = ((name, _looped(loop, waiting_source, number)) for name, loop in (outside, BY_HAND))
    yield await side_by_side("each item of a stream beside a block", where, ours, by_hand, rounds=rounds)


BY_HAND = ("a block at each step, by hand", by_hand_loop)


def _looped(loop: Any, source: Any, number: int) -> Timed:
    async def run() -> float:
        seconds: float = await loop(source(number), number)
        return seconds

    return run
