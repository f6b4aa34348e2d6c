"""Cancel after some time, or at some time."""

from __future__ import annotations

from math import inf, isnan
from typing import TYPE_CHECKING, final

import anyio

from .._core._public import public
from .._core._reasons import Cancelation, CancelationReason
from .._core._timeouts import seconds

if TYPE_CHECKING:
    from datetime import timedelta


@public
@final
class TimeoutSource:
    """Cancels after a delay, or at a deadline; if both are given, at the earlier of the two.

    An operation by itself needs none, it has a ``timeout``. This is for inside of `AnyOfSource` and
    `AllOfSource`, and for deadlines on the clock.

    Args:
        timeout: The delay in seconds, counted from entering the operation's block.
        deadline: A time on the event loop's clock, which is that of ``anyio.current_time()``, in seconds.

    Raises:
        TypeError: If neither is given, or one is of the wrong kind.
        ValueError: If *timeout* is negative, or one of them NaN.
    """

    __slots__ = ("_deadline", "_timeout")

    def __init__(self, timeout: float | timedelta | None = None, *, deadline: float | None = None) -> None:
        if timeout is None and deadline is None:
            raise TypeError("TimeoutSource() needs a timeout or a deadline")
        self._timeout = seconds(timeout)
        if deadline is not None:
            if not isinstance(deadline, (int, float)) or isinstance(deadline, bool):
                raise TypeError(f"deadline must be a number of seconds, got {deadline!r}")
            if isnan(deadline):
                raise ValueError(f"deadline must not be NaN, got {deadline!r}")
        self._deadline = inf if deadline is None else deadline

    def __repr__(self) -> str:
        parts = [] if self._timeout is None else [f"{self._timeout:g}"]
        if self._deadline != inf or not parts:
            parts.append(f"deadline={self._deadline!r}")
        return f"{type(self).__name__}({', '.join(parts)})"

    async def wait(self) -> Cancelation:
        """Wait until the time has come. Always a checkpoint."""
        end, message = self._deadline, "the deadline passed"
        if self._timeout is not None:
            after = anyio.current_time() + self._timeout
            if after < end:
                end, message = after, f"timed out after {self._timeout:g} seconds"
        await anyio.sleep_until(end)
        return Cancelation(CancelationReason.TIMEOUT, message)
