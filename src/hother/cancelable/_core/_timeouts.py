"""What counts as a timeout, checked at the earliest moment."""

from __future__ import annotations

from math import inf, isnan
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta


def seconds(timeout: float | timedelta | None, name: str = "timeout") -> float | None:
    """Turn *timeout* into seconds; for ever, be it ``None`` or infinite, is ``None``.

    Raises:
        TypeError: If it is neither a number of seconds nor a ``timedelta``.
        ValueError: If it is negative or NaN.
    """
    if timeout is None:
        return None
    if (type(timeout) is float or type(timeout) is int) and 0 <= timeout < inf:
        return float(timeout)
    in_seconds = getattr(timeout, "total_seconds", None)  # rather than import datetime for its type
    value = timeout if in_seconds is None else in_seconds()
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number of seconds, a timedelta or None, got {timeout!r}")
    if value < 0 or isnan(value):
        raise ValueError(f"{name} must not be negative or NaN, got {timeout!r}")
    return None if value == inf else float(value)
