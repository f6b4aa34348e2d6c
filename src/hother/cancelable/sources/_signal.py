"""Cancel when the process receives a signal.

A process has one handler for each signal, and here any number of operations may listen. So the handler
is a hook with a list of listeners; whoever comes first puts it in place, and whoever goes last puts
back what was there before.

1. There is no table of hooks: the hook in place is the one that `signal.getsignal` returns.
2. A hook that somebody else has replaced cannot be taken out: they may hold it, to call it or to put
   it back. It stays usable; with no listeners it does what would happen without it.
3. What was there before is called, too, unless it is a default: listening for Ctrl-C means that it
   does not kill the program. What a backend installs for Ctrl-C counts as a default.
4. Those who only overhear a signal change nothing about it, not even what its default does.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType
from typing import Any, final

import anyio
from anyio.lowlevel import current_token

from .._core._public import public
from .._core._reasons import Cancelation, CancelationReason
from .._core._wakeup import call_soon, is_interrupt_handler


@public
@final
class SignalSource:
    """Cancels when the process receives one of some signals.

    While an operation waits for a signal, its default action is off: SIGTERM and Ctrl-C do not end the
    process. Handlers that were installed before in Python, a server's for instance, are called as well.
    A handler that is installed later, and does not call the one before it, takes the signal for itself.

    Once the signal has come, or the block is left, what was there before is back: a second Ctrl-C ends
    the program as usual.

    Args:
        signals: At least one, like ``signal.SIGTERM``.

    Raises:
        TypeError: If one of *signals* is not a number.
        ValueError: If there is none, or one cannot be caught here.
    """

    __slots__ = ("_signals",)

    def __init__(self, *signals: int) -> None:
        if not signals:
            raise ValueError("SignalSource() needs at least one signal")
        self._signals = tuple(dict.fromkeys(_checked(number) for number in signals))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(number.name for number in self._signals)})"

    async def wait(self) -> Cancelation:
        """Wait until one of the signals arrives. Always a checkpoint.

        Raises:
            RuntimeError: If this is not the main thread.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(
                f"{self!r} can only be used in the main thread: Python lets no other install signal "
                "handlers. Wait for the signal there, and cancel a CancelationToken, which any thread may"
            )
        loop = current_token()
        arrived = anyio.Event()
        received: list[int] = []

        def tell(number: int) -> None:
            received.append(number)
            call_soon(loop, arrived.set)

        with ExitStack() as listening:
            for number in self._signals:
                listening.callback(_listen(number, tell))
            await arrived.wait()
        return Cancelation(CancelationReason.SIGNAL, f"received {signal.Signals(received[0]).name}")


def _checked(number: int) -> signal.Signals:
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"a signal must be a number, like signal.SIGTERM, got {number!r}")
    try:
        checked = signal.Signals(number)
    except ValueError:
        raise ValueError(f"there is no signal {number!r} on this platform") from None
    if checked.name in {"SIGKILL", "SIGSTOP"}:
        raise ValueError(f"{checked.name} cannot be caught")
    return checked


class _Hook:
    """The handler of one signal."""

    def __init__(self, previous: Any) -> None:
        self._previous: Any = previous
        # Both are changed by single steps, never locked.
        self._listeners: dict[object, Callable[[int], None]] = {}
        self._onlookers: dict[object, Callable[[int], None]] = {}

    def __call__(self, number: int, frame: FrameType | None) -> None:
        listeners = tuple(self._listeners.values())
        for tell in (*self._onlookers.values(), *listeners):
            tell(number)
        if callable(self._previous):
            if not listeners or not _is_default(self._previous):
                self._previous(number, frame)
        elif not listeners and self._previous is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def add(self, number: int, tell: Callable[[int], None], *, claim: bool) -> Callable[[], None]:
        handle = object()
        listeners = self._listeners if claim else self._onlookers
        listeners[handle] = tell

        def remove() -> None:
            del listeners[handle]
            current: object = signal.getsignal(number)
            if current is self and not self._listeners and not self._onlookers:
                signal.signal(number, self._previous)

        return remove


def overhear(number: int, tell: Callable[[int], None]) -> Callable[[], None]:
    """Have *tell* called when the signal arrives, which does what it does without us, too.

    Only a handler in Python can be overheard: without one, nothing is installed.

    Returns:
        A function that takes *tell* back. Call it in the main thread.

    Raises:
        ValueError: If this is not the main thread.
    """
    if not callable(signal.getsignal(number)):
        return lambda: None
    return _listen(number, tell, claim=False)


def _listen(number: int, tell: Callable[[int], None], *, claim: bool = True) -> Callable[[], None]:
    """Have *tell* called when the signal arrives. Returns a function that takes it back."""
    current = signal.getsignal(number)
    hook = current if isinstance(current, _Hook) else _Hook(current or signal.SIG_DFL)
    remove = hook.add(number, tell, claim=claim)
    if hook is not current:
        signal.signal(number, hook)
    return remove


def _is_default(handler: Callable[..., object]) -> bool:
    return handler is signal.default_int_handler or is_interrupt_handler(handler)
