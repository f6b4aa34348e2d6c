"""The cancelation token: a flag that is raised once, and says why.

A token knows of nothing above it: no scopes, no operations, no requests.

It holds no lock. A lock would deadlock when a signal handler or a finalizer cancels a token while
the very same thread is inside one of that token's methods. Two operations that dicts do atomically
are enough:

1. ``setdefault`` decides which of several cancels was the first.
2. ``pop`` decides who runs a callback: whoever takes it out of the dict. That is either the cancel
   that found it there, or the call that added it and then saw the flag up. So a callback runs once,
   or is removed first and never runs.

Links point both ways, and only one way keeps alive: a child holds its parents, while a parent knows
its child by a weak reference that takes itself away with the child. So links cost nothing but while
both ends live.
"""

from __future__ import annotations

import sys
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, final

import anyio
from anyio.lowlevel import current_token

from ._errors import error_for
from ._public import public
from ._reasons import Cancelation, CancelationReason
from ._wakeup import run_in

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

Callback: TypeAlias = Callable[[Cancelation], object]


class _Link(weakref.ref["CancelationToken"]):
    """What a token has among its callbacks for each of its children."""

    __slots__ = ()


@public
@dataclass(frozen=True, slots=True)
class TokenStatistics:
    """A snapshot of a token's insides, for debugging and for tests."""

    cancelation: Cancelation | None  #: why the token was cancelled, if it was
    callbacks: int  #: how many callbacks, waiters and links still wait for that


@public
@final
class CancelationToken:
    """A flag that any thread may raise and any task may wait for.

    A token only *says* that work should stop; it interrupts nothing by itself. Wait for it, poll it
    with `check`, or hand it to a `Cancelable`, which stops its block when the token is cancelled.

    Make tokens wherever you like: no event loop needs to run, and tasks of several loops may share
    one. All methods but `wait` are safe in any thread and in signal handlers, and never block.

    Example:
        >>> token = CancelationToken()
        >>> token.cancel(message="no longer needed")
        True
        >>> print(token.cancelation)
        no longer needed
    """

    __slots__ = ("__weakref__", "_callbacks", "_links", "_verdict")

    def __init__(self) -> None:
        # Holds at most one value: a dict rather than an attribute, for its setdefault().
        self._verdict: dict[None, Cancelation] = {}
        # Keys are handles, not the functions: one function may be added twice.
        self._callbacks: dict[object, Callback | _Link] = {}
        # The parents, each with the function that takes the link away.
        self._links: tuple[tuple[CancelationToken, Callable[[], None]], ...] = ()

    def __repr__(self) -> str:
        cancelation = self.cancelation
        state = "active" if cancelation is None else f"cancelled: {cancelation}"
        return f"<{type(self).__name__} {state} at {id(self):#x}>"

    @property
    def cancelation(self) -> Cancelation | None:
        """Why the token was cancelled, or ``None`` while it is not."""
        return self._verdict.get(None)

    @property
    def is_cancelled(self) -> bool:
        """Whether the token was cancelled."""
        return bool(self._verdict)

    def cancel(
        self,
        reason: CancelationReason = CancelationReason.MANUAL,
        message: str | None = None,
        *,
        by: str | None = None,
        cause: Cancelation | None = None,
    ) -> bool:
        """Raise the flag, and run the callbacks in this thread. The first call wins; others change nothing.

        Never blocks and never waits for an event loop; an idle loop in which somebody waits for the
        token is woken at once. Safe in any thread, in signal handlers and in finalizers.

        Args:
            reason: What asked for the cancelation.
            message: What to tell a human about it.
            by: Who asked, for logs: a user, an operation, a source.
            cause: The cancelation that this one follows from.

        Returns:
            Whether this call was the first.

        Raises:
            TypeError: If *reason* is not a `CancelationReason`.
            BaseException: What a callback raised, after all of them have run; an exception group if
                more than one did.
        """
        if not isinstance(reason, CancelationReason):
            raise TypeError(f"reason must be a CancelationReason, got {reason!r}")
        return self.cancel_with(Cancelation(reason, message, by, cause))

    def cancel_with(self, cancelation: Cancelation) -> bool:
        """Raise the flag with a record that exists, such as another token's. Otherwise like `cancel`."""
        if not self._raise_flag(cancelation):
            return False
        errors: list[BaseException] = []
        raised: deque[CancelationToken] = deque(
            [self]
        )  # not by recursion: a chain of children may be longer than the stack
        while raised:
            raised.extend(raised.popleft()._tell(cancelation, errors))
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise BaseExceptionGroup("callbacks of a cancelation token failed", errors)
        return True

    def check(self) -> None:
        """Do nothing, or raise if the token was cancelled. Not a checkpoint; made for threads and busy loops.

        Raises:
            CancelationError: If the token was cancelled; the subclass tells the reason.
        """
        if self._verdict:
            raise error_for(self._verdict[None])

    async def wait(self) -> Cancelation:
        """Wait until the token is cancelled. Always a checkpoint.

        Returns:
            Why it was cancelled.
        """
        raised = anyio.Event()
        loop = current_token()
        remove_callback = self.add_callback(lambda _: run_in(loop, raised.set))
        try:
            await raised.wait()
        finally:
            remove_callback()
        return self._verdict[None]

    def add_callback(self, callback: Callback) -> Callable[[], None]:
        """Have *callback* called once the token is cancelled.

        Args:
            callback: A plain function, called with the `Cancelation` in the thread that cancels; or
                here and now, if the token is cancelled already.

        Returns:
            A function that takes the callback back. Calling it too late, or twice, does nothing; a
            callback that another thread has begun to run is not waited for.

        Raises:
            TypeError: If *callback* is not callable.
            Exception: What *callback* raised, if the token is cancelled already.
        """
        if not callable(callback):
            raise TypeError(f"callback must be callable, got {callback!r}")
        handle = object()
        self._callbacks[handle] = callback
        if self._verdict and self._callbacks.pop(handle, None) is not None:
            callback(self._verdict[None])
        return lambda: self._remove_callback(handle)

    def child(self) -> CancelationToken:
        """Make a token that is cancelled with this one, and can be cancelled by itself.

        The parent does not keep the child alive: hold on to it for as long as you want it to hear.
        """
        return self.any_of(self)

    @classmethod
    def any_of(cls, *tokens: CancelationToken) -> CancelationToken:
        """Make a token that is cancelled with the first of *tokens*, for the same reason.

        The given tokens do not keep the new one alive: hold on to it for as long as you want it to hear.

        Raises:
            TypeError: If one of *tokens* is not a token.
        """
        for token in tokens:
            if not isinstance(token, CancelationToken):
                raise TypeError(f"any_of() takes tokens, got {token!r}")
        joined = cls()
        joined._links = tuple((token, token._add_child(joined)) for token in tokens)
        if joined._verdict:  # cancelled while it was being linked: its links were not known yet
            joined._unlink()
        return joined

    def statistics(self) -> TokenStatistics:
        """Return a snapshot of the token's insides, for debugging and for tests."""
        return TokenStatistics(self.cancelation, len(self._callbacks))

    def _raise_flag(self, cancelation: Cancelation) -> bool:
        if self._verdict.setdefault(None, cancelation) is not cancelation:
            return False
        self._unlink()
        return True

    def _tell(self, cancelation: Cancelation, errors: list[BaseException]) -> list[CancelationToken]:
        """Run the callbacks, and collect what they raise. Returns the children whose flag went up."""
        children: list[CancelationToken] = []
        for handle in list(self._callbacks):
            callback = self._callbacks.pop(handle, None)
            if isinstance(callback, _Link):
                child = callback()
                if child is not None and child._raise_flag(cancelation):
                    children.append(child)
            elif callback is not None:
                try:
                    callback(cancelation)
                except BaseException as error:
                    errors.append(error)
        return children

    def _add_child(self, child: CancelationToken) -> Callable[[], None]:
        handle = object()
        self._callbacks[handle] = _Link(child, lambda _: self._remove_callback(handle))
        if self._verdict and self._callbacks.pop(handle, None) is not None:
            child.cancel_with(self._verdict[None])
        return lambda: self._remove_callback(handle)

    def _unlink(self) -> None:
        links, self._links = self._links, ()
        for _, remove in links:
            remove()

    def _remove_callback(self, handle: object) -> None:
        self._callbacks.pop(handle, None)
