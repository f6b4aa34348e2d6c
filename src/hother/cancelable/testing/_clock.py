"""A clock that jumps: an hour of timeouts in a millisecond, on both backends.

Trio brings one, `trio.testing.MockClock`. For asyncio this module makes one: an event loop asks its
selector to sleep until the next timer is due, and this loop's selector moves the loop's time
there instead.
"""

from __future__ import annotations

from asyncio import SelectorEventLoop
from math import ulp
from selectors import DefaultSelector
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from collections.abc import Callable
    from selectors import SelectorKey


@final
class _JumpingSelector(DefaultSelector):
    """Asks for events as usual, but passes the time with *jump* instead of waiting."""

    def __init__(self, jump: Callable[[float], None]) -> None:
        super().__init__()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        # None means that no timer is pending. Then only a thread or a socket can wake the loop,
        # and for these there is nothing to do but to wait.
        events = super().select(None if timeout is None else 0)
        # With an event there is something that can run, and then time stands still.
        if timeout and not events:
            self._jump(timeout)
        return events


@final
class AutojumpEventLoop(SelectorEventLoop):
    """An asyncio event loop whose time stands still until nothing else can run, and then jumps.

    It jumps to the next timer. So tasks that wait for each other and for the clock run in the same
    order as on a real clock, without the waiting. Time starts at 0.

    The loop does not wait for threads, sockets and other processes while a timer is pending: it takes
    them for idle and jumps. Test these on a real clock.

    Example:
        >>> loop = AutojumpEventLoop()
        >>> loop.run_until_complete(asyncio.sleep(3600))  # returns at once
        >>> loop.time()
        3600.0
        >>> loop.close()
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._clock_resolution: float
        super().__init__(_JumpingSelector(self._advance))

    def _advance(self, seconds: float) -> None:
        self._now += seconds
        # asyncio runs a timer once it is due in less than the clock's resolution, a nanosecond. After
        # 97 days that is less than floats can tell apart, and a timer due right now would never run.
        self._clock_resolution = max(self._clock_resolution, ulp(self._now))

    def time(self) -> float:
        """Return the loop's time, in seconds since the loop was made. Never blocks."""
        return self._now


def virtual_backend(name: str) -> tuple[str, dict[str, Any]]:
    """Return an AnyIO backend whose clock jumps to the next deadline when nothing else can run.

    The pair is what AnyIO's pytest plugin expects from an ``anyio_backend`` fixture, and its halves
    are what `anyio.run` takes as *backend* and *backend_options*. Ask for a new pair for each test,
    so that its time starts at 0.

    Args:
        name: ``"asyncio"`` or ``"trio"``.

    Returns:
        The name of the backend, and its options.

    Raises:
        ImportError: If *name* is ``"trio"``, which is not installed.
        ValueError: If *name* is something else.

    Example:
        >>> name, options = virtual_backend("asyncio")
        >>> anyio.run(anyio.sleep, 3600, backend=name, backend_options=options)  # returns at once
    """
    match name:
        case "asyncio":
            return name, {"loop_factory": AutojumpEventLoop}
        case "trio":
            from trio.testing import MockClock

            return name, {"clock": MockClock(autojump_threshold=0)}
        case _:
            raise ValueError(f'name must be "asyncio" or "trio", got {name!r}')
