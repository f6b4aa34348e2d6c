"""Cancel when a condition holds, by asking again and again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import TYPE_CHECKING, final

import anyio

from .._core._public import public
from .._core._reasons import Cancelation, CancelationReason
from .._core._timeouts import seconds

if TYPE_CHECKING:
    from datetime import timedelta


@public
@final
class ConditionSource:
    """Cancels as soon as a predicate returns true.

    The predicate is asked at once, and again *interval* seconds after each answer. What it raises is
    not caught: a condition that cannot be checked ends the operation with that error, rather than
    passing for one that does not hold.

    Args:
        predicate: What to ask. It runs in the event loop, so it must not block; it may be a coroutine
            function, or return anything that can be awaited.
        interval: The pause after each answer, in seconds.

    Raises:
        TypeError: If *predicate* is not callable, or *interval* not a time.
        ValueError: If *interval* is not positive and finite.
    """

    __slots__ = ("_interval", "_predicate")

    def __init__(
        self, predicate: Callable[[], bool | Awaitable[bool]], interval: float | timedelta = 0.1
    ) -> None:
        if not callable(predicate):
            raise TypeError(f"predicate must be callable, got {predicate!r}")
        pause = seconds(interval, "interval")
        if not pause:  # zero, or for ever
            raise ValueError(f"interval must be positive and finite, got {interval!r}")
        self._predicate = predicate
        self._interval = pause

    @property
    def _name(self) -> str:
        return getattr(self._predicate, "__qualname__", None) or repr(self._predicate)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name})"

    async def wait(self) -> Cancelation:
        """Wait until the predicate returns true. Not a checkpoint if that is at once."""
        while not await self._ask():  # noqa: ASYNC110 - nobody tells when a predicate would answer otherwise
            await anyio.sleep(self._interval)
        return Cancelation(CancelationReason.CONDITION, f"{self._name} came true")

    async def _ask(self) -> bool:
        answer = self._predicate()
        return await answer if isawaitable(answer) else answer
