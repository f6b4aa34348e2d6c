"""The jumping clock: the order of a real one, without the waiting."""

from __future__ import annotations

import threading
from asyncio import get_running_loop
from time import monotonic

import anyio
import pytest
from anyio import create_task_group, fail_after, move_on_after

from hother.cancelable.testing import virtual_backend

HOUR = 3600.0
YEAR = 365 * 24 * HOUR


@pytest.mark.parametrize("seconds", [0.001, HOUR, YEAR, 100 * YEAR])
async def test_any_sleep_is_exact_and_takes_no_time(seconds: float) -> None:
    """
    A century passes as fast as a millisecond.
    """
    started = monotonic()

    await anyio.sleep(seconds)

    assert anyio.current_time() == seconds
    assert monotonic() - started < 2


async def test_sleepers_wake_in_the_order_of_their_time() -> None:
    """
    The clock stops at each deadline on the way.
    """
    woken: list[tuple[float, float]] = []

    async def sleep_for(seconds: float) -> None:
        await anyio.sleep(seconds)
        woken.append((seconds, anyio.current_time()))

    async with create_task_group() as tasks:
        for hours in (3, 1, 2):
            tasks.start_soon(sleep_for, hours * HOUR)

    assert woken == [(hours * HOUR, hours * HOUR) for hours in (1, 2, 3)]


async def test_time_stands_still_while_something_can_run() -> None:
    """
    A busy task is not overtaken by a deadline.
    """
    with move_on_after(0.001) as scope:
        for _ in range(1000):
            await anyio.lowlevel.cancel_shielded_checkpoint()

    assert not scope.cancelled_caught
    assert anyio.current_time() == 0


async def test_a_deadline_ends_what_would_wait_for_ever() -> None:
    """
    A test for a hang needs no time either.
    """
    with pytest.raises(TimeoutError), fail_after(HOUR):
        await anyio.sleep_forever()

    assert anyio.current_time() == HOUR


def test_a_loop_without_timers_waits_for_threads() -> None:
    """
    With nothing to jump to, the loop sleeps until a thread wakes it.
    """

    async def main() -> float:
        woken = anyio.Event()
        loop = get_running_loop()
        threading.Timer(0.05, loop.call_soon_threadsafe, [woken.set]).start()
        await woken.wait()
        return anyio.current_time()

    backend, options = virtual_backend("asyncio")

    assert anyio.run(main, backend=backend, backend_options=options) == 0


@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_a_backend_is_made_of_what_anyio_run_takes(name: str) -> None:
    """
    The clock serves programs as well as tests.
    """

    async def main() -> float:
        await anyio.sleep(HOUR)
        return anyio.current_time()

    if name == "trio":
        pytest.importorskip("trio")
    backend, options = virtual_backend(name)

    assert anyio.run(main, backend=backend, backend_options=options) == HOUR


def test_unknown_backends_are_refused() -> None:
    """
    uvloop has a clock of its own, which nobody can move.
    """
    with pytest.raises(ValueError, match="uvloop"):
        virtual_backend("uvloop")


@pytest.mark.parametrize("name", ["asyncio", "trio"])
async def test_a_loop_in_a_thread_has_a_time_of_its_own(name: str) -> None:
    """
    A program that runs another loop meanwhile, from the outside in.
    """

    async def main() -> float:
        await anyio.sleep(HOUR)
        return anyio.current_time()

    def run() -> float:
        backend, options = virtual_backend(name)
        return anyio.run(main, backend=backend, backend_options=options)

    if name == "trio":
        pytest.importorskip("trio")
    await anyio.sleep(1)

    assert await anyio.to_thread.run_sync(run) == HOUR
    assert anyio.current_time() == 1


@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_every_new_backend_begins_at_no_time(name: str) -> None:
    """
    One run after the other, each with a pair of its own.
    """

    async def main() -> float:
        start = anyio.current_time()
        await anyio.sleep(1)
        return start

    if name == "trio":
        pytest.importorskip("trio")
    for _ in range(2):
        backend, options = virtual_backend(name)
        assert anyio.run(main, backend=backend, backend_options=options) == 0


def test_no_uvloop_is_needed_or_used() -> None:
    """
    Where it is installed AnyIO does not take it for this clock.
    """

    async def main() -> str:
        return type(get_running_loop()).__module__

    backend, options = virtual_backend("asyncio")

    assert anyio.run(main, backend=backend, backend_options=options) == "hother.cancelable.testing"
