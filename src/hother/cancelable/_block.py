"""The block of an operation while it runs: the scope that stops it, its deadline, and what it registered.

1. The token says that the operation should stop; the scope stops it. A callback on the token cancels
   the scope, always in the scope's own loop.
2. A timeout is the scope's deadline; no task waits for it.
3. The flag of an enclosing operation may be up before its scope is cancelled, if a thread raised it.
   Then the enclosing scope comes first: else this block would take the cancelation for its own.
4. All that opening registers (callbacks on tokens, the current operation) closing takes away.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from math import inf
from types import TracebackType
from typing import Any

from anyio import CancelScope
from anyio.lowlevel import current_token

from ._core._reasons import Cancelation, CancelationReason
from ._core._token import Callback, CancelationToken
from ._core._wakeup import run_in, thread_safe_clock

# The blocks around this code, innermost first. All of them, since one that was left may be gone when
# a task that was started in it looks for those around it.
_current: ContextVar[tuple[weakref.ref[Block], ...]] = ContextVar("current_blocks", default=())

# The operation that this thread works for: the current one there, even when its block was left.
_NOBODY = object()
_kept: ContextVar[object] = ContextVar("kept_owner", default=_NOBODY)


class Block:
    """One block, opened and closed by the same task.

    Other threads may ask how much time is left, and nothing else.

    Args:
        owner: The operation; not kept alive.
        name: What to call it.
        token: The operation's own token, which cancels the block.
        limits: Pairs of how many seconds the block may take at most, and what exceeding them means.
    """

    def __init__(
        self,
        owner: object,
        name: str | None,
        token: CancelationToken,
        limits: Iterable[tuple[float, Cancelation]],
    ) -> None:
        self._owner = weakref.ref(owner)
        self._name = name
        self._token = token
        self._loop = current_token()  # fails, with nothing to undo, where no event loop runs
        self._clock = thread_safe_clock(self._loop)
        self.started_at = time.time()  #: in seconds since the epoch
        self._opened = self._clock()
        self._closed: float | None = None
        limit = min(limits, key=lambda limit: limit[0], default=None)
        self.late = None if limit is None else limit[1]  #: what passing the deadline means
        self.deadline = inf if limit is None else self._opened + limit[0]  #: on the loop's clock
        self._scope = CancelScope(deadline=self.deadline)
        self._outer = tuple(weakref.ref(block) for block in _open_blocks(_current.get()))
        self._removers: list[Callable[[], None]] = []

    # --- Safe in any thread

    @property
    def is_late(self) -> bool:
        """Whether the deadline has passed while the block is open."""
        return self._closed is None and self._clock() >= self.deadline

    def remaining(self) -> float | None:
        """How many seconds are left, never less than 0; ``None`` without a deadline."""
        return None if self.deadline == inf else max(self.deadline - self._clock(), 0.0)

    def elapsed(self) -> float:
        """How many seconds the block has run, or ran."""
        return (self._clock() if self._closed is None else self._closed) - self._opened

    @property
    def is_closed(self) -> bool:
        """Whether the block was left."""
        return self._closed is not None

    @property
    def is_around(self) -> bool:
        """Whether the block is open, and this code runs in it."""
        return any(block is self for block in _open_blocks(_current.get()))

    # --- In the block's task

    def open(self) -> None:
        """Enter the scope. Whoever calls this has to call `close`."""
        self._scope.__enter__()
        _current.set((weakref.ref(self), *self._outer))

    def listen(self, token: CancelationToken, callback: Callback) -> None:
        """Have *callback* called when *token* is cancelled, for as long as the block is open."""
        self._removers.append(token.add_callback(callback))

    def cancel_with_token(self) -> None:
        """Have the block stopped once its token is cancelled, or now, if it is."""
        self.listen(self._token, lambda cause: run_in(self._loop, self._cancel, cause))

    def close(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> BaseException | None:
        """Leave the scope, and take away all that was registered.

        Returns:
            The exception that goes on: *exc*, or what was with it in a group; ``None`` if all of it
            was the scope's own cancelation.
        """
        self._cancel_enclosing()
        try:
            return None if self._scope.__exit__(exc_type, exc, traceback) else exc
        except BaseException as remaining:
            return remaining
        finally:
            self._closed = self._clock()
            self._unlink()

    def outside_cancelation(self) -> Cancelation:
        """Tell why the block was cancelled from outside, as far as that can be known."""
        for outer in self._enclosing():
            cause = outer._token.cancelation or (outer.late if outer.is_late else None)
            if cause is not None:
                return parent_cancelation(outer._name, cause)
        return Cancelation(CancelationReason.EXTERNAL)

    def enclosing_owners(self) -> Iterator[Any]:
        """The operations around this one, from the inside out. Safe in any thread."""
        owners = (outer._owner() for outer in self._enclosing())
        return (owner for owner in owners if owner is not None)

    def _cancel(self, cancelation: Cancelation) -> None:
        """Runs in the loop, perhaps when the block is closed already."""
        if self._closed is None:
            self._scope.cancel(f"{cancelation.reason}: {cancelation}")

    def _cancel_enclosing(self) -> None:
        for outer in self._enclosing():
            cancelation = outer._token.cancelation
            if cancelation is not None and outer._loop == self._loop:
                outer._cancel(cancelation)

    def _enclosing(self) -> Iterator[Block]:
        """The open blocks around this one, from the inside out."""
        return _open_blocks(self._outer)

    def _unlink(self) -> None:
        for remove in self._removers:
            remove()
        self._removers.clear()
        current = _current.get()
        if current and current[0]() is self:
            _current.set(self._outer)


def current_owner() -> Any:
    """Return the operation of the innermost open block that this code runs in, or ``None``."""
    kept = _kept.get()
    for reference in _current.get():
        block = reference()
        owner = None if block is None else block._owner()
        if block is not None and (block._closed is None or owner is kept):
            return owner
    return None


def keep_current(owner: object) -> None:
    """Have *owner*, the current operation, stay that in this context after its block was left."""
    _kept.set(owner)


def parent_cancelation(name: str | None, cause: Cancelation) -> Cancelation:
    """Make the record of a cancelation that follows from that of an operation above."""
    message = f"the parent operation was cancelled: {cause}"
    return Cancelation(CancelationReason.PARENT, message, by=name, cause=cause, at=cause.at)


def _open_blocks(references: Iterable[weakref.ref[Block]]) -> Iterator[Block]:
    for reference in references:
        block = reference()
        if block is not None and block._closed is None:
            yield block
