"""The cancelation token: a flag that is raised once, and says why.

A token knows of nothing above it: no scopes, no operations, no requests.

It holds no lock. A lock would deadlock when a signal handler or a finalizer cancels a token while
the very same thread is inside one of that token's methods. Two operations that are atomic are enough:

1. ``append`` to the list of causes decides which of several cancels was the first: nothing is ever
   taken out of the list, so what is at its head stays there.
2. ``pop`` decides who runs a callback: whoever takes it out of the dict. That is either the cancel
   that found it there, or the call that added it and then saw the flag up. So a callback runs once,
   or is removed first and never runs.

Links point both ways, and only one way keeps alive: a child holds its parents, while a parent knows
its child by a weak reference that takes itself away with the child. So links cost nothing but while
both ends live. Children hear of later causes, too, always in the order of their parent's list.

Most tokens belong to something: to the block of an operation, or to a request. Their owner is the only one
that listens to them, as a rule. It has a slot, and needs no entry in a dict; and it hears first.
"""

from __future__ import annotations

import sys
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, TypeAlias, TypeVar, final

from ._errors import error_for
from ._public import public
from ._reasons import Cancelation, CancelationReason
from ._waits import run_until_cancelled, wait, wait_in_thread
from ._wakeup import CallSite

if TYPE_CHECKING:
    from datetime import timedelta

    from typing_extensions import TypeVarTuple, Unpack

    from ._guard import TokenGuard

    Ts = TypeVarTuple("Ts")

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

T = TypeVar("T")
Callback: TypeAlias = Callable[[Cancelation], object]

KEPT = 16
"""How many causes a token keeps: they tell the story, and ten thousand signals must not fill the memory."""


class _Link(weakref.ref["CancelationToken"]):
    """What a token has among its callbacks for each of its children."""

    __slots__ = ()


class _News(IntEnum):
    """What a cause is to a token."""

    NONE = 0  #: it has it already
    UNKEPT = 1  #: news, but there are too many
    LATER = 2
    FIRST = 3  #: it raised the flag


# To find a member of an Enum takes a while below Python 3.12, and ten thousand tokens ask.
_NONE, _UNKEPT, _LATER, _FIRST = _News


class Listener:
    """Hears of each cause of a token, the first and those after it.

    They come in the order of `causes`, and those that were told before may be told again: a listener knows
    what it has heard. Two threads may tell it the same at the same time. It is its own handle among the
    callbacks.
    """

    __slots__ = ()

    def hear(self, cause: Cancelation, site: CallSite) -> object:
        """Hear of *cause*. Called in the thread that cancels, from *site*."""


@public
@dataclass(frozen=True, slots=True)
class TokenStatistics:
    """A snapshot of a token's insides, for debugging and for tests."""

    cancelation: Cancelation | None  #: why the token was cancelled, if it was
    callbacks: int  #: how many callbacks, waiters and living children it would tell


@public
@final
class CancelationToken:
    """A flag that any thread may raise and any task may wait for.

    A token only *says* that work should stop; it interrupts nothing by itself. Wait for it, poll it
    with `check`, or hand it to a `Cancelable`, which stops its block when the token is cancelled.

    Make tokens wherever you like: no event loop needs to run, and tasks of several loops may share
    one. All methods but those that wait are safe in any thread and in signal handlers, and never block.

    Example:
        >>> token = CancelationToken()
        >>> token.cancel(message="no longer needed")
        True
        >>> print(token.cancelation)
        no longer needed
    """

    __slots__ = ("__weakref__", "_callbacks", "_causes", "_owner", "_parents")

    def __init__(self) -> None:
        self._causes: list[Cancelation] = []
        self._owner: Listener | None = None  # whose token it is; see `_belong_to`
        # Keys are handles, not the functions: one function may be added twice.
        self._callbacks: dict[object, Callback | _Link | Listener] = {}
        self._parents: tuple[CancelationToken, ...] = ()  # for the sake of keeping them alive

    def __repr__(self) -> str:
        cancelation = self.cancelation
        state = "active" if cancelation is None else f"cancelled: {cancelation}"
        return f"<{type(self).__name__} {state} at {id(self):#x}>"

    @property
    def cancelation(self) -> Cancelation | None:
        """Why the token was cancelled, or ``None`` while it is not."""
        return self._causes[0] if self._causes else None

    @property
    def is_cancelled(self) -> bool:
        """Whether the token was cancelled."""
        return bool(self._causes)

    @property
    def causes(self) -> tuple[Cancelation, ...]:
        """All that asked for the cancelation, in order: the first one decided, and is `cancelation`.

        The first 16 are kept.
        """
        return self._distinct_causes()[:KEPT]

    def cancel(
        self,
        reason: CancelationReason = CancelationReason.MANUAL,
        message: str | None = None,
        *,
        by: str | None = None,
        cause: Cancelation | None = None,
    ) -> bool:
        """Raise the flag, and run the callbacks in this thread. The first call wins; others add a cause.

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
        return self._cancel_with(Cancelation(reason, message, by, cause), CallSite())

    def cancel_with(self, cancelation: Cancelation) -> bool:
        """Raise the flag with a record that exists, such as another token's. Otherwise like `cancel`.

        A record that the token has already is not added again.
        """
        return self._cancel_with(cancelation, CallSite())

    def _cancel_with(self, cancelation: Cancelation, site: CallSite) -> bool:
        news = self._add_cause(cancelation)
        if news is _FIRST and not self._callbacks:  # the owner alone is to be told, and of nothing else
            owner = self._owner
            if owner is not None:
                owner.hear(cancelation, site)
        elif news:
            self._spread(cancelation, news, site)
        return news is _FIRST

    def _cancel_by(self, owner: Listener, cancelation: Cancelation, site: CallSite) -> bool:
        """Do as `_cancel_with`, unless *owner*, who asks, is the only one to be told.

        Then that is up to *owner*. On Trio each frame on the way to a scope stays for a while: it is part of
        the story of the exception that cancelling makes there.

        Returns:
            Whether it is.
        """
        causes = self._causes
        if causes:
            news = self._add_cause(cancelation)
        else:  # what `_add_cause` would do, without ten thousand calls of it
            causes.append(cancelation)
            news = _FIRST if causes[0] is cancelation else _LATER
            if news is _FIRST and self._owner is owner and not self._callbacks:
                return True
        if news:
            self._spread(cancelation, news, site)
        return False

    def _spread(self, cancelation: Cancelation, news: _News, site: CallSite) -> None:
        errors: list[BaseException] = []
        children = self._tell(cancelation, news, site, errors)
        if children:
            self._tell_all(children, cancelation, site, errors)
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise BaseExceptionGroup("callbacks of a cancelation token failed", errors)

    def cancel_after(
        self,
        timeout: float | timedelta,
        reason: CancelationReason = CancelationReason.TIMEOUT,
        message: str | None = None,
        *,
        by: str | None = None,
    ) -> Callable[[], None]:
        """Cancel the token after some time, if it still exists then.

        The event loop that runs in this thread keeps the time, and nothing else: no task of yours waits, and
        when the loop ends, the timer ends with it. What callbacks raise goes to `sys.excepthook`.

        Args:
            timeout: How long to wait, in seconds.
            reason: What to cancel the token for.
            message: What to tell a human about it.
            by: Who asked, for logs.

        Returns:
            A function that takes it back. Safe in any thread; too late, or twice, it does nothing.

        Raises:
            RuntimeError: If no event loop runs in this thread.
            TypeError: If *timeout* is not a time, or *reason* not a `CancelationReason`.
            ValueError: If *timeout* is negative or NaN.
        """
        if not isinstance(reason, CancelationReason):
            raise TypeError(f"reason must be a CancelationReason, got {reason!r}")
        from ._alarm import cancel_after

        return cancel_after(self, timeout, reason, message, by)

    def guard(
        self,
        reason: CancelationReason = CancelationReason.MANUAL,
        message: str | None = None,
        *,
        by: str | None = None,
    ) -> TokenGuard:
        """Make a plain context manager that cancels the token when it is left, however that happens.

        ::

            with token.guard(message="the owner has gone"):
                ...

        See `TokenGuard`; the arguments are those of `cancel`.

        Raises:
            TypeError: If *reason* is not a `CancelationReason`.
        """
        if not isinstance(reason, CancelationReason):
            raise TypeError(f"reason must be a CancelationReason, got {reason!r}")
        from ._guard import TokenGuard

        return TokenGuard(self, reason, message, by)

    def check(self) -> None:
        """Do nothing, or raise if the token was cancelled. Not a checkpoint; made for threads and busy loops.

        Raises:
            CancelationError: If the token was cancelled; the subclass tells the reason.
        """
        if self._causes:
            raise error_for(self._causes[0])

    async def wait(self) -> Cancelation:
        """Wait until the token is cancelled. Always a checkpoint.

        Returns:
            Why it was cancelled.
        """
        return await wait(self)

    def wait_in_thread(self, timeout: float | timedelta | None = None) -> Cancelation | None:
        """Block this thread until the token is cancelled, by whatever thread or signal handler.

        Args:
            timeout: How long to wait at most, in seconds.

        Returns:
            Why it was cancelled, or ``None`` if it was not in that time.

        Raises:
            RuntimeError: If an event loop runs in this thread: it would be blocked, so ``await`` `wait`.
            TypeError: If *timeout* is not a time.
            ValueError: If *timeout* is negative or NaN.
        """
        return wait_in_thread(self, timeout)

    async def run_until_cancelled(
        self, function: Callable[[Unpack[Ts]], Awaitable[T]], /, *args: Unpack[Ts]
    ) -> T | Cancelation:
        """Await *function*, and interrupt it once the token is cancelled. Always a checkpoint.

        ::

            match await token.run_until_cancelled(fetch, url):
                case Cancelation() as cancelation: ...
                case page: ...

        A value that *function* returns is never lost, even if the token was cancelled at the same time.
        If it was cancelled before, *function* is not called.

        Args:
            function: A coroutine function.
            args: Its arguments.

        Returns:
            What *function* returned; or why the token was cancelled, if *function* was interrupted.
        """
        return await run_until_cancelled(self, function, *args)

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
        if self._causes and self._callbacks.pop(handle, None) is not None:
            callback(self._causes[0])
        return lambda: self._remove_callback(handle)

    def _listen(self, listener: Listener) -> None:
        """Have *listener* told of each cause, those that there are already included."""
        self._callbacks[listener] = listener
        if self._causes:
            for cause in self.causes:
                listener.hear(cause, CallSite())

    def _belong_to(self, owner: Listener) -> None:
        """Have *owner* told before all others, otherwise as `_listen` does.

        A cancel that comes before the write is found here, and one that comes after it finds the owner. Where
        there is an owner already, the new one is one of the others: two tasks go through one stream, perhaps.
        """
        if self._owner is None:
            self._owner = owner
        else:
            self._callbacks[owner] = owner
        if self._causes:
            for cause in self.causes:
                owner.hear(cause, CallSite())

    def _leave(self, owner: Listener) -> None:
        """Have *owner* told nothing any more."""
        if self._owner is owner:
            self._owner = None
        elif self._callbacks:
            self._callbacks.pop(owner, None)

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
        joined._parents = tuple(dict.fromkeys(tokens))
        for token in joined._parents:
            token._add_child(joined)
        return joined

    def statistics(self) -> TokenStatistics:
        """Return a snapshot of the token's insides, for debugging and for tests."""
        return TokenStatistics(self.cancelation, len(self._callbacks) + (self._owner is not None))

    def _distinct_causes(self) -> tuple[Cancelation, ...]:
        causes = tuple(self._causes)
        if len(causes) <= 1:
            return causes
        # Threads that are at it at the same time may add the same one twice, or one too many.
        return tuple({id(cause): cause for cause in causes}.values())

    def _add_cause(self, cancelation: Cancelation) -> _News:
        causes = self._causes
        if causes:
            if any(cause is cancelation for cause in causes):
                return _NONE
            if len(self.causes) >= KEPT:
                return _UNKEPT
        causes.append(cancelation)
        return _FIRST if causes[0] is cancelation else _LATER

    def _tell_all(
        self,
        children: list[tuple[CancelationToken, _News]],
        cancelation: Cancelation,
        site: CallSite,
        errors: list[BaseException],
    ) -> None:
        """Tell *children*, and theirs. Not by recursion: a chain of them may be longer than the stack."""
        told: set[CancelationToken] = {self}  # so that what nobody keeps goes around once
        telling = deque([children])
        while telling:
            for child, news in telling.popleft():
                if news is not _UNKEPT or child not in told:
                    told.add(child)
                    telling.append(child._tell(cancelation, news, site, errors))

    def _tell(
        self, cancelation: Cancelation, news: _News, site: CallSite, errors: list[BaseException]
    ) -> list[tuple[CancelationToken, _News]]:
        """Tell all, and collect what they raise. Returns the children for which it is news, too."""
        causes = self._distinct_causes()
        if news is _UNKEPT:
            causes += (cancelation,)
        owner = self._owner
        if owner is not None:
            try:
                for cause in causes:
                    owner.hear(cause, site)
            except BaseException as error:
                errors.append(error)
        return self._tell_others(causes, news, site, errors) if self._callbacks else []

    def _tell_others(  # noqa: C901 (in a function of its own, a part would be one more frame: see `_cancel_by`)
        self, causes: tuple[Cancelation, ...], news: _News, site: CallSite, errors: list[BaseException]
    ) -> list[tuple[CancelationToken, _News]]:
        children: list[tuple[CancelationToken, _News]] = []
        first, later = causes[0], causes[1:]
        for handle in list(self._callbacks):  # and not its items: they would be ten thousand tuples
            callback = self._callbacks.get(handle)
            if isinstance(callback, Listener):
                try:
                    callback.hear(first, site)
                    if later:
                        for cause in later:
                            callback.hear(cause, site)
                except BaseException as error:
                    errors.append(error)
            elif isinstance(callback, _Link):
                child = callback()
                childs_news = _NONE if child is None else max(map(child._add_cause, causes))
                if child is not None and childs_news:
                    children.append((child, childs_news))
            elif callback is not None and news is _FIRST and self._callbacks.pop(handle, None) is not None:
                _call(callback, first, errors)
        return children

    def _add_child(self, child: CancelationToken) -> None:
        handle = object()
        self._callbacks[handle] = _Link(child, lambda _: self._remove_callback(handle))
        for cause in self.causes:
            child.cancel_with(cause)

    def _remove_callback(self, handle: object) -> None:
        self._callbacks.pop(handle, None)


def _call(callback: Callback, cause: Cancelation, errors: list[BaseException]) -> None:
    try:
        callback(cause)
    except BaseException as error:
        errors.append(error)
