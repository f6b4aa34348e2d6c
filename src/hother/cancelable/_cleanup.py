"""The time that an operation has to clean up, shared by all that do so.

Each shielded section, callback and closing has a limit of its own. Ten of them may take ten times as long,
unless they have a budget together, which begins to run when the operation is interrupted.
"""

from __future__ import annotations

from math import inf
from types import TracebackType
from typing import final

from anyio import CancelScope, current_time


@final
class Cleanup:
    """Shortens the shielded scopes of one operation. For the loop that they run in."""

    __slots__ = ("_begins_at", "_scopes", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds: float = seconds  #: how many there are for all together
        self._begins_at = inf
        self._scopes: dict[CancelScope, float] = {}  # with the deadlines that they would have

    def begin_at(self, when: float) -> None:
        """Say when the operation is interrupted, as far as that is known; it may be moved."""
        self._begins_at = when
        for scope, deadline in self._scopes.items():
            scope.deadline = min(deadline, when + self.seconds)

    def begin_now(self) -> None:
        """Say that the operation is interrupted now, if it was not before."""
        self.begin_at(min(self._begins_at, current_time()))

    def admit(self, scope: CancelScope) -> None:
        """Have *scope* end with the budget, from now on until `dismiss`."""
        self._scopes[scope] = scope.deadline
        scope.deadline = min(scope.deadline, self._begins_at + self.seconds)

    def dismiss(self, scope: CancelScope) -> bool:
        """Let *scope* go. Tells whether the budget had shortened it."""
        return scope.deadline < self._scopes.pop(scope)


@final
class ShieldedScope:
    """A shielded cancel scope that ends after some seconds, or with the budget of an operation."""

    __slots__ = ("_cleanup", "_limit", "_scope", "_seconds")

    def __init__(self, seconds: float | None, cleanup: Cleanup | None) -> None:
        self._seconds = seconds
        self._cleanup = cleanup
        self._scope = CancelScope(shield=True)
        self._limit = "" if seconds is None else f"its {seconds:g} seconds"

    def __enter__(self) -> ShieldedScope:
        if self._seconds is not None:
            self._scope.deadline = current_time() + self._seconds
        if self._cleanup is not None:
            self._cleanup.admit(self._scope)
        self._scope.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        try:
            return self._scope.__exit__(exc_type, exc, traceback)
        finally:
            if self._cleanup is not None and self._cleanup.dismiss(self._scope):
                self._limit = f"the {self._cleanup.seconds:g} seconds that its operation has to clean up"

    @property
    def was_cut_short(self) -> bool:
        """Whether what it protected was interrupted."""
        return self._scope.cancelled_caught

    @property
    def limit(self) -> str:
        """What it has used up then, in words."""
        return self._limit
