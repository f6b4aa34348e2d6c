"""What counts as a timeout, checked at the earliest moment."""

from __future__ import annotations

from datetime import timedelta
from math import isnan
from numbers import Real


def seconds(timeout: float | timedelta | None, name: str = "timeout") -> float | None:
    """Turn *timeout* into seconds, ``None`` meaning for ever.

    Raises:
        TypeError: If it is neither a number of seconds nor a ``timedelta``.
        ValueError: If it is negative or NaN.
    """
    if timeout is None:
        return None
    if isinstance(timeout, timedelta):
        timeout = timeout.total_seconds()
    if not isinstance(timeout, Real) or isinstance(timeout, bool):
        raise TypeError(f"{name} must be a number of seconds, a timedelta or None, got {timeout!r}")
    if timeout < 0 or isnan(timeout):
        raise ValueError(f"{name} must not be negative or NaN, got {timeout!r}")
    return float(timeout)
