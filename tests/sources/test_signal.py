"""The signal source: listeners that come and go, and handlers of others before, beside and after it.

A lost wake-up is told by the time it took: a deadline wakes the loop too, and would make a late
success of it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from anyio import CancelScope, create_task_group, fail_after, sleep, sleep_forever, wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from hother.cancelable import (
    AnyOfSource,
    Cancelable,
    Cancelation,
    CancelationReason,
    OperationStatus,
    SignalCancelation,
    SignalSource,
    TimeoutSource,
)
from hother.cancelable.sources._signal import _Hook, _listen, overhear
from tests.interruption import at_line

pytestmark = [
    pytest.mark.uvloop,  # everywhere here, and all of it on the real clock
    pytest.mark.skipif(sys.platform == "win32", reason="sends signals to itself"),
]

SOON = 2.0  #: much longer than a wake-up takes, much shorter than the deadlines below
LATE = 6.0
USR1, USR2 = signal.SIGUSR1, signal.SIGUSR2


@pytest.fixture(autouse=True)
def handlers_are_restored() -> Iterator[None]:
    """
    No test leaves a handler behind.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, USR1, USR2)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """
    What a handler that was there before, for SIGUSR1, gets to hear.
    """
    calls: list[int] = []
    before = signal.signal(USR1, lambda number, _: calls.append(number))
    yield calls
    signal.signal(USR1, before)


def send_from_outside(number: int, after: float = 0.1) -> threading.Thread:
    """Send a signal to this process while its loop is idle."""
    thread = threading.Timer(after, os.kill, (os.getpid(), number))
    thread.start()
    return thread


# --- Waking up


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, USR1])
async def test_an_idle_loop_is_woken_at_once(number: signal.Signals) -> None:
    """
    Whatever the backend's own way with signals is, Ctrl-C included.
    """
    start = anyio.current_time()

    with fail_after(LATE):
        with pytest.raises(SignalCancelation, match=f"received {number.name}") as caught:
            async with Cancelable.with_signal(number) as operation:
                thread = send_from_outside(number)
                await sleep_forever()
    thread.join()

    assert anyio.current_time() - start < SOON
    assert operation.status is OperationStatus.CANCELLED
    assert caught.value.cancelation.by == f"SignalSource({number.name})"


async def test_any_of_its_signals_will_do() -> None:
    """
    The record says which one it was.
    """
    source = SignalSource(USR1, USR2, USR1)
    for number in (USR1, USR2):
        fired: list[Cancelation] = []

        async def wait(fired: list[Cancelation] = fired) -> None:
            fired.append(await source.wait())

        with fail_after(LATE):
            async with create_task_group() as tasks:
                tasks.start_soon(wait)
                await checkpoint()
                await checkpoint()
                signal.raise_signal(number)

        assert fired == [Cancelation(CancelationReason.SIGNAL, f"received {number.name}")]


async def test_a_signal_at_the_very_beginning_of_the_block_is_heard() -> None:
    """
    By then everybody listens: nothing has to be waited for first.
    """
    for _ in range(20):
        with fail_after(LATE), pytest.raises(SignalCancelation):
            async with Cancelable.with_signal(USR1, USR2):
                signal.raise_signal(USR2)
                await sleep_forever()


async def test_it_works_within_a_composite() -> None:
    """
    Beside a timeout, for one.
    """
    with fail_after(LATE), pytest.raises(SignalCancelation):
        async with Cancelable(sources=[AnyOfSource([SignalSource(USR1), TimeoutSource(LATE)])]):
            await sleep(0.05)
            signal.raise_signal(USR1)
            await sleep_forever()


# --- Many listeners


async def test_every_listener_hears_and_may_leave_in_any_order(heard: list[int]) -> None:
    """
    The signal does its default only when the last one has gone.
    """
    scopes = [CancelScope() for _ in range(4)]
    ended: list[int] = []

    async def listen(index: int) -> None:
        with scopes[index]:
            await SignalSource(USR1).wait()
            ended.append(index)

    start = anyio.current_time()
    with fail_after(LATE):
        async with create_task_group() as tasks:
            for index in range(4):
                tasks.start_soon(listen, index)
            await wait_all_tasks_blocked()
            scopes[1].cancel()
            scopes[3].cancel()
            await wait_all_tasks_blocked()
            assert isinstance(signal.getsignal(USR1), _Hook)
            signal.raise_signal(USR1)

    assert sorted(ended) == [0, 2]
    assert heard == [USR1]
    assert anyio.current_time() - start < SOON

    signal.raise_signal(USR1)

    assert heard == [USR1, USR1]


async def test_operations_one_within_the_other() -> None:
    """
    When the shorter one ends, the longer one still listens, and the signal does not kill the process.
    """
    with fail_after(LATE), pytest.raises(SignalCancelation):
        async with Cancelable.with_signal(USR1):
            async with Cancelable.with_signal(USR1):
                await sleep(0.01)
            signal.raise_signal(USR1)
            await sleep_forever()


async def test_a_second_signal_while_the_block_unwinds_changes_nothing(heard: list[int]) -> None:
    """
    The one that was there before has it.
    """
    with fail_after(LATE), pytest.raises(SignalCancelation):
        async with Cancelable.with_signal(USR1):
            signal.raise_signal(USR1)
            signal.raise_signal(USR1)
            try:
                await sleep_forever()
            finally:
                signal.raise_signal(USR1)

    assert heard == [USR1] * 3


def test_a_signal_may_come_at_any_line(heard: list[int]) -> None:
    """
    While somebody begins to listen or leaves: who listens all the time hears it, and so does who was there.
    """
    for line in range(1, 200):
        always: list[int] = []
        sometimes: list[int] = []
        heard.clear()
        stop = _listen(USR1, always.append)
        with at_line(line, lambda: signal.raise_signal(USR1)) as where:
            _listen(USR1, sometimes.append)()
        stop()
        if not where:
            break

        assert always == heard == [USR1]
        assert len(sometimes) <= 1

        heard.clear()
        with at_line(line, lambda: signal.raise_signal(USR1)) as where:
            _listen(USR1, sometimes.append)()

        assert heard == [USR1] if where else heard == []

    assert line > 20


# --- Overhearing


def test_who_overhears_a_signal_does_not_take_it(heard: list[int]) -> None:
    """
    The handler from before hears it as well, and is all that is left afterwards.
    """
    overheard: list[int] = []
    stop = overhear(USR1, overheard.append)
    stop_second = overhear(USR1, overheard.append)
    signal.raise_signal(USR1)
    stop()
    signal.raise_signal(USR1)
    stop_second()
    signal.raise_signal(USR1)

    assert overheard == [USR1] * 3
    assert heard == [USR1] * 3


def test_ctrl_c_that_is_only_overheard_ends_the_program() -> None:
    """
    Unless somebody listens to it besides; then as soon as they have left.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    overheard: list[int] = []
    listened: list[int] = []
    stop = overhear(signal.SIGINT, overheard.append)
    try:
        leave = _listen(signal.SIGINT, listened.append)
        signal.raise_signal(signal.SIGINT)
        leave()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        stop()
        signal.signal(signal.SIGINT, before)

    assert (len(overheard), len(listened)) == (2, 1)


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_what_has_no_handler_in_python_is_not_overheard(handler: signal.Handlers) -> None:
    """
    There is nothing that we could call as if we were not there.
    """
    before = signal.signal(USR2, handler)
    stop = overhear(USR2, lambda _: None)
    found = signal.getsignal(USR2)
    stop()
    signal.signal(USR2, before)

    assert found is handler


# --- Handlers of others


async def test_uvicorns_handlers_hear_too() -> None:
    """
    A server goes on to shut down in its own way.
    """
    uvicorn = pytest.importorskip("uvicorn")
    server: Any = uvicorn.Server(uvicorn.Config(app="unused:app"))
    term = signal.signal(signal.SIGTERM, lambda *_: None)  # where the server sends it on to, at its end
    try:
        with server.capture_signals():
            with fail_after(LATE), pytest.raises(SignalCancelation):
                async with Cancelable.with_signal(signal.SIGTERM):
                    send_from_outside(signal.SIGTERM).join()
                    await sleep_forever()

            assert server.should_exit
    finally:
        signal.signal(signal.SIGTERM, term)


async def test_anyios_receiver_hears_too() -> None:
    """
    On asyncio and uvloop that is `add_signal_handler`, on Trio its own receiver.
    """
    with fail_after(LATE), anyio.open_signal_receiver(USR1) as signals:
        before = signal.getsignal(USR1)
        for _ in range(2):
            start = anyio.current_time()
            with pytest.raises(SignalCancelation):
                async with Cancelable.with_signal(USR1):
                    thread = send_from_outside(USR1)
                    await sleep_forever()
            thread.join()

            assert signal.getsignal(USR1) == before
            assert await anext(signals) == USR1
            assert anyio.current_time() - start < SOON


async def test_a_handler_that_came_later_is_left_in_place(heard: list[int]) -> None:
    """
    It may call the one that it found, at any time, or put it back: nothing is lost by that.
    """
    later: list[int] = []
    before = signal.getsignal(USR1)

    async with Cancelable.with_signal(USR1) as operation:
        found: Any = signal.getsignal(USR1)

        def handler(number: int, frame: Any) -> None:
            later.append(number)
            found(number, frame)

        signal.signal(USR1, handler)
    assert not operation.is_cancelled
    assert signal.getsignal(USR1) is handler

    signal.raise_signal(USR1)

    assert (later, heard) == ([USR1], [USR1])

    with fail_after(LATE), pytest.raises(SignalCancelation):
        async with Cancelable.with_signal(USR1):
            signal.raise_signal(USR1)
            await sleep_forever()

    assert (later, heard) == ([USR1] * 2, [USR1] * 2)

    signal.signal(USR1, found)

    with fail_after(LATE), pytest.raises(SignalCancelation):
        async with Cancelable.with_signal(USR1):
            signal.raise_signal(USR1)
            await sleep_forever()

    assert signal.getsignal(USR1) is before
    assert heard == [USR1] * 3


def test_a_hook_without_listeners_does_what_python_would_do() -> None:
    """
    Somebody may have put it back: Ctrl-C interrupts, what is ignored stays ignored, and a default is one.
    """
    urgent = signal.signal(signal.SIGURG, _Hook(signal.SIG_DFL))  # the default of this one does no harm
    signal.raise_signal(signal.SIGURG)
    assert signal.signal(signal.SIGURG, urgent) is signal.SIG_DFL

    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, _Hook(signal.default_int_handler))
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

        signal.signal(signal.SIGINT, _Hook(signal.SIG_IGN))
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("listens", "code"), [(True, 0), (False, -signal.SIGTERM)])
def test_the_default_action_is_off_only_while_somebody_listens(listens: bool, code: int) -> None:
    """
    After that, also through a hook that was put back, SIGTERM ends the process.
    """
    program = (
        "import signal\n"
        "from hother.cancelable.sources._signal import _listen\n"
        "remove = _listen(signal.SIGTERM, lambda number: None)\n"
        "hook = signal.getsignal(signal.SIGTERM)\n"
        f"if not {listens}: remove(); signal.signal(signal.SIGTERM, hook)\n"
        "signal.raise_signal(signal.SIGTERM)\n"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == code


def test_a_hook_restores_what_a_c_library_has_installed_as_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Python cannot name such a handler, and so nobody could put it back.
    """
    with monkeypatch.context() as patch:
        patch.setattr(signal, "getsignal", lambda _: None)
        remove = _listen(USR1, lambda _: None)
    remove()

    assert signal.getsignal(USR1) is signal.SIG_DFL


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_after_the_block_ctrl_c_ends_the_program_as_usual(backend: str) -> None:
    """
    The first one is the operation's, the second one the backend's.
    """
    if backend not in anyio.get_available_backends():
        pytest.skip(f"{backend} is not installed")
    if backend == "asyncio" and sys.version_info < (3, 11):
        pytest.skip("AnyIO's own handler of Ctrl-C ends the program with CancelledError before Python 3.11")
    program = (
        "import anyio, signal\n"
        "from hother.cancelable import Cancelable\n"
        "async def main():\n"
        "    async with Cancelable.with_signal(signal.SIGINT, raise_on_cancel=False) as operation:\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "        await anyio.sleep(10)\n"
        "    print(operation.cancelation.message)\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "    await anyio.sleep(10)\n"
        "try:\n"
        f"    anyio.run(main, backend={backend!r})\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )

    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert process.stdout.splitlines() == ["received SIGINT", "interrupted"]


# --- Mistakes


def test_another_thread_is_told_what_to_do(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    """
    The rule is Python's; the error says what works instead, and leaves the block as itself.
    """
    name, options = anyio_backend
    errors: list[RuntimeError] = []

    async def main() -> None:
        with pytest.raises(
            RuntimeError, match=r"only be used in the main thread: .* CancelationToken"
        ) as caught:
            async with Cancelable.with_signal(USR1) as operation:
                await sleep_forever()
        assert operation.status is OperationStatus.FAILED
        errors.append(caught.value)

    thread = threading.Thread(target=lambda: anyio.run(main, backend=name, backend_options=options))
    thread.start()
    thread.join()

    assert len(errors) == 1


@pytest.mark.parametrize(
    ("signals", "error", "message"),
    [
        ((), ValueError, "needs at least one signal"),
        (("SIGTERM",), TypeError, "a signal must be a number, like signal.SIGTERM, got 'SIGTERM'"),
        ((True,), TypeError, "a signal must be a number"),
        (([USR1],), TypeError, "a signal must be a number"),
        ((0,), ValueError, "there is no signal 0 on this platform"),
        ((9999,), ValueError, "there is no signal 9999"),
        ((signal.SIGKILL,), ValueError, "SIGKILL cannot be caught"),
        ((USR1, signal.SIGSTOP), ValueError, "SIGSTOP cannot be caught"),
    ],
)
def test_an_impossible_signal_is_refused(signals: Any, error: type[Exception], message: str) -> None:
    """
    When the source is made, as when the operation is.
    """
    with pytest.raises(error, match=message):
        SignalSource(*signals)
    with pytest.raises(error, match=message):
        Cancelable.with_signal(*signals)


def test_a_number_is_a_signal_too() -> None:
    """
    It is shown by its name.
    """
    assert repr(SignalSource(int(USR1), USR2)) == "SignalSource(SIGUSR1, SIGUSR2)"


@pytest.mark.only_on("asyncio")
async def test_asyncios_own_handlers_can_be_added_before() -> None:
    """
    They hear the signal in their way, and can be removed as ever.
    """
    loop = asyncio.get_running_loop()
    called: list[str] = []
    loop.add_signal_handler(USR1, called.append, "asyncio's")

    with fail_after(LATE), pytest.raises(SignalCancelation):
        async with Cancelable.with_signal(USR1):
            send_from_outside(USR1).join()
            await sleep_forever()
    await sleep(0.01)

    assert called == ["asyncio's"]
    assert loop.remove_signal_handler(USR1)
