"""A section that the cancelation of its operation must not interrupt."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar, final

from ._cleanup import Cleanup, ShieldedScope
from ._core._errors import LifecycleError, TimeoutCancelation
from ._core._public import public
from ._core._reasons import Cancelation, CancelationReason

T = TypeVar("T")


@public
@final
class Shield(Generic[T]):
    """The async context manager that `Cancelable.shield` returns. It can be entered once."""

    __slots__ = ("_is_used", "_on_change", "_scope", "_value")

    def __init__(
        self, value: T, budget: float | None, cleanup: Cleanup | None, on_change: Callable[[bool], None]
    ) -> None:
        self._value = value
        self._on_change = on_change
        self._scope = ShieldedScope(budget, cleanup)
        self._is_used = False

    async def __aenter__(self) -> T:
        if self._is_used:
            raise LifecycleError("a shield protects one section; make a new one for each")
        self._on_change(True)
        self._is_used = True
        self._scope.__enter__()
        return self._value

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        try:
            self._scope.__exit__(exc_type, exc, traceback)
        finally:
            self._on_change(False)
        if self._scope.was_cut_short:
            message = f"a shielded section used up {self._scope.limit}"
            raise TimeoutCancelation(Cancelation(CancelationReason.TIMEOUT, message)) from exc
        return False
