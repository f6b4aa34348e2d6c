"""Ways to wait for a token: as a task, as a thread, and while something else runs."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import anyio
from anyio import CancelScope
from anyio.lowlevel import EventLoopToken, checkpoint, current_token

from ._reasons import Cancelation
from ._timeouts import seconds
from ._wakeup import is_running_here, run_in

if TYPE_CHECKING:
    from datetime import timedelta

    from typing_extensions import TypeVarTuple, Unpack

    from ._token import CancelationToken

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")


async def wait(token: CancelationToken) -> Cancelation:
    """See `CancelationToken.wait`."""
    raised = anyio.Event()
    loop = current_token()
    remove_callback = token.add_callback(lambda _: run_in(loop, raised.set))
    try:
        await raised.wait()
    finally:
        remove_callback()
    return _cancelation(token)


def wait_in_thread(token: CancelationToken, timeout: float | timedelta | None) -> Cancelation | None:
    """See `CancelationToken.wait_in_thread`."""
    limit = seconds(timeout)
    if is_running_here():
        raise RuntimeError("wait_in_thread() would block the event loop of this thread; await wait() instead")
    # A bare lock: its release is a single step, so that a signal handler may take it in the midst of this
    # thread's waiting. An Event has a lock of its own, which this thread might just hold.
    raised = threading.Lock()
    raised.acquire()
    remove_callback = token.add_callback(lambda _: raised.release())
    try:
        raised.acquire(timeout=-1 if limit is None else min(limit, threading.TIMEOUT_MAX))
    finally:
        remove_callback()
    return token.cancelation


async def run_until_cancelled(
    token: CancelationToken, function: Callable[[Unpack[Ts]], Awaitable[T]], *args: Unpack[Ts]
) -> T | Cancelation:
    """See `CancelationToken.run_until_cancelled`."""
    await checkpoint()
    if token.is_cancelled:
        return _cancelation(token)
    with _Interruptible() as scope:
        remove_callback = token.add_callback(scope.interrupt)
        try:
            return await function(*args)
        finally:
            remove_callback()
    return _cancelation(token)  # nothing else interrupts this scope, and ends there


class _Interruptible:
    """A cancel scope that any thread may cancel, even when it was left already."""

    def __init__(self) -> None:
        self._loop: EventLoopToken = current_token()
        self._scope = CancelScope()
        self._is_open = True

    def __enter__(self) -> _Interruptible:
        self._scope.__enter__()
        return self

    def __exit__(self, *exc: object) -> bool | None:
        self._is_open = False
        return self._scope.__exit__(*exc)  # type: ignore[arg-type]

    def interrupt(self, _: object) -> None:
        run_in(self._loop, self._interrupt)

    def _interrupt(self) -> None:
        if self._is_open:
            self._scope.cancel()


def _cancelation(token: CancelationToken) -> Cancelation:
    cancelation = token.cancelation
    assert cancelation is not None
    return cancelation
