"""Cancelable: a token, sources, a deadline and a lifecycle around one ``async with`` block.

The block (`_block`) catches the cancelation that it caused; this module turns that into a status, tells
those who listen, and raises a `CancelationError`. A cancelation from outside passes through as the
backend's own exception. By the time that anything of the user's runs, nothing is registered any more.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial, wraps
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, cast

from anyio import get_cancelled_exc_class

from ._block import Block, current_owner, parent_cancelation
from ._callbacks import checked, run_all
from ._core._errors import CancelationError, LifecycleError, error_for, leaves
from ._core._lifecycle import OperationStatus, check_transition
from ._core._observers import (
    Observer,
    Progress,
    Transition,
    notify_progress,
    notify_transition,
    report,
    watching,
)
from ._core._operation import OperationContext
from ._core._public import public
from ._core._reasons import Cancelation, CancelationReason
from ._core._timeouts import seconds
from ._core._token import CancelationToken
from ._iteration import CancelableAsyncIterator
from ._shield import Shield
from ._threads import run_in_thread
from ._watch import Watch
from .sources._source import Source, checked_sources

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from datetime import timedelta

    from typing_extensions import ParamSpec, Self, Unpack

    P = ParamSpec("P")

T = TypeVar("T")


@public
class OperationOptions(TypedDict, total=False):
    """What every constructor of `Cancelable` takes by keyword."""

    operation_id: str | None  #: instead of a random id
    name: str | None  #: for errors and logs
    parent: Cancelable | None  #: an operation whose cancelation and deadline hold for this one, too
    metadata: Mapping[str, Any] | None  #: anything, for observers
    raise_on_cancel: bool  #: False: leave the block quietly when cancelled
    observers: Iterable[Observer]  #: who is told of this operation, besides those who watch all


@public
class Cancelable:
    """An operation that can be cancelled: by its token, its sources, its deadline, its parent.

    Use it once, with ``async with``. When it is cancelled, its block is interrupted at the next
    checkpoint, and leaving the block raises a `CancelationError` that says why. A cancelation from
    outside (of an enclosing scope, or of the task) passes through the block untouched.

    ::

        async with Cancelable(timeout=30, tokens=[token], name="report") as operation:
            await build_report()

    `cancel` may be called by any thread, at any time. The other methods belong to the task that runs
    the block, unless they say otherwise.

    Args:
        timeout: How long the block may take, in seconds, counted from entering it.
        tokens: Any of them cancels the operation, for its own reason.
        sources: What else may cancel it. They are waited for while the block runs, each in a task.
        options: See `OperationOptions`.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If *timeout* is negative or NaN.
    """

    def __init__(
        self,
        *,
        timeout: float | timedelta | None = None,
        tokens: Iterable[CancelationToken] = (),
        sources: Iterable[Source] = (),
        **options: Unpack[OperationOptions],
    ) -> None:
        unknown = options.keys() - OperationOptions.__annotations__.keys()
        if unknown:
            raise TypeError(f"Cancelable() got unexpected arguments: {', '.join(sorted(unknown))}")
        self._timeout = seconds(timeout)
        self._tokens = tuple(tokens)
        for token in self._tokens:
            if not isinstance(token, CancelationToken):
                raise TypeError(f"tokens must be CancelationTokens, got {token!r}")
        self._sources = checked_sources(sources)
        parent = options.get("parent")
        if not isinstance(parent, (Cancelable, type(None))):
            raise TypeError(f"parent must be a Cancelable, got {parent!r}")
        self._parents: tuple[Cancelable, ...] = () if parent is None else (parent,)
        self._given_id = options.get("operation_id")
        self._name = options.get("name")
        self._metadata = dict(options.get("metadata") or {})
        self._raise_on_cancel = options.get("raise_on_cancel", True)
        self._observers = tuple(options.get("observers", ()))
        self._callbacks: dict[str, list[Callable[..., object]]] = {}

        self._status = OperationStatus.PENDING
        self._token = CancelationToken()
        self._block: Block | None = None  # from entering on
        self._watch: Watch | None = None  # while inside, if there are sources
        self._error: str | None = None
        self._above_id: str | None = None
        self._shields = 0

    # --- Making one

    @classmethod
    def with_timeout(cls, timeout: float | timedelta | None, **options: Unpack[OperationOptions]) -> Self:
        """Make an operation that may take *timeout* seconds, counted from entering its block."""
        return cls(timeout=timeout, **options)

    @classmethod
    def with_token(cls, *tokens: CancelationToken, **options: Unpack[OperationOptions]) -> Self:
        """Make an operation that any of *tokens* cancels. Cancelling the operation leaves them alone."""
        return cls(tokens=tokens, **options)

    @classmethod
    def with_signal(cls, *signals: int, **options: Unpack[OperationOptions]) -> Self:
        """Make an operation that is cancelled when the process receives one of *signals*.

        See `SignalSource`; its block has to run in the main thread.
        """
        from .sources._signal import SignalSource

        return cls(sources=(SignalSource(*signals),), **options)

    @classmethod
    def with_condition(
        cls,
        predicate: Callable[[], bool | Awaitable[bool]],
        interval: float | timedelta = 0.1,
        **options: Unpack[OperationOptions],
    ) -> Self:
        """Make an operation that is cancelled once *predicate* returns true. See `ConditionSource`."""
        from .sources._condition import ConditionSource

        return cls(sources=(ConditionSource(predicate, interval),), **options)

    def combine(self, *others: Cancelable) -> Cancelable:
        """Make a new operation that ends as soon as any of these would.

        It takes over everything they were made with: the shortest time left, all tokens, sources and
        parents, callbacks, observers and metadata; the name comes from *self*. Cancelling one of them cancels
        the new one; none of them needs to be entered.

        Raises:
            TypeError: If one of *others* is not a `Cancelable`.
        """
        parts = (self, *others)
        for part in parts:
            if not isinstance(part, Cancelable):
                raise TypeError(f"combine() takes Cancelables, got {part!r}")
        combined = Cancelable(
            timeout=min((left for part in parts if (left := part.remaining()) is not None), default=None),
            tokens=[token for part in parts for token in (part._token, *part._tokens)],
            sources={id(source): source for part in parts for source in part._sources}.values(),
            name=self._name,
            metadata={key: value for part in reversed(parts) for key, value in part._metadata.items()},
            raise_on_cancel=self._raise_on_cancel,
            observers=dict.fromkeys(observer for part in parts for observer in part._observers),
        )
        combined._parents = tuple(dict.fromkeys(parent for part in parts for parent in part._parents))
        for part in parts:
            for event, callbacks in part._callbacks.items():
                combined._callbacks.setdefault(event, []).extend(callbacks)
        return combined

    def follow(self) -> Cancelable:
        """Make a new operation that is cancelled with this one, and when this one's time is up.

        Unlike a child, it is cancelled for the same reason; unlike `combine`, it takes no callbacks
        over. Cancelling it leaves this one alone. This one need not be entered.
        """
        tokens = (self._token, *self._tokens)
        followed = Cancelable(timeout=self.remaining(), tokens=tokens, sources=self._sources, name=self._name)
        followed._parents = self._parents
        return followed

    # --- Looking at it. Safe in any thread.

    def __repr__(self) -> str:
        name = f" {self._name!r}" if self._name else ""
        return f"<{type(self).__name__}{name} {self._status} at {id(self):#x}>"

    @property
    def id(self) -> str:
        """The operation's id: 16 random hexadecimal digits, unless it was given another."""
        # Made when first asked for, by whichever thread is first.
        return self._given_id or self.__dict__.setdefault("_random_id", os.urandom(8).hex())

    @property
    def name(self) -> str | None:
        """The operation's name, for errors and logs."""
        return self._name

    @property
    def metadata(self) -> dict[str, Any]:
        """What was written on the operation. It may be changed."""
        return self._metadata

    @property
    def parent(self) -> Cancelable | None:
        """The operation whose cancelation holds for this one, too."""
        return self._parents[0] if self._parents else None

    @property
    def token(self) -> CancelationToken:
        """The operation's own token. Cancelling it cancels this operation, and not what it was made of.

        When the deadline passes, those who wait for the token hear of it as the block is left, or as
        anybody asks the operation.
        """
        return self._token

    @property
    def status(self) -> OperationStatus:
        """Where the operation stands."""
        return self._status

    @property
    def cancelation(self) -> Cancelation | None:
        """Why the operation was cancelled, if it was."""
        self._notice_deadline()
        return self._token.cancelation

    @property
    def is_cancelled(self) -> bool:
        """Whether the operation was told to stop, be its block left already or not."""
        return self.cancelation is not None

    @property
    def context(self) -> OperationContext:
        """A snapshot of the operation."""
        return OperationContext(
            id=self.id,
            name=self._name,
            status=self._status,
            parent_id=self._find_above_id(),
            cancelation=self.cancelation,
            error=self._error,
            started_at=None if self._block is None else self._block.started_at,
            duration=None if self._block is None else self._block.elapsed(),
            metadata=dict(self._metadata),
        )

    @property
    def deadline(self) -> float:
        """When the operation times out, on the event loop's clock (seconds), its parents' deadlines included.

        Infinite if it does not, or has not been entered.
        """
        return inf if self._block is None else self._block.deadline

    def remaining(self) -> float | None:
        """How many seconds are left until the deadline: never less than 0; ``None`` without a deadline.

        Before the block is entered, that is the whole timeout.
        """
        return self._timeout if self._block is None else self._block.remaining()

    # --- Cancelling it

    def cancel(
        self,
        reason: CancelationReason = CancelationReason.MANUAL,
        message: str | None = None,
        *,
        by: str | None = None,
    ) -> bool:
        """Cancel the operation and its children, in whatever tasks and threads they run.

        Safe in any thread and in signal handlers; never blocks. Before the block is entered, it will
        be interrupted at its first checkpoint; after it was left, nothing happens to it.

        Args:
            reason: What asked for it.
            message: What to tell a human about it.
            by: Who asked, for logs.

        Returns:
            Whether this was the first cancelation.
        """
        self._notice_deadline()
        return self._token.cancel(reason, message, by=by)

    def check(self) -> None:
        """Do nothing, or raise if the operation was cancelled or its deadline has passed.

        In its block, also if that holds for an operation around it, which would interrupt the block at a
        checkpoint (unless it is in a shielded section). Not a checkpoint: made for threads and for loops
        that never wait. Safe in any thread.

        Raises:
            CancelationError: If the operation should stop; the subclass tells the reason.
        """
        cancelation = self.cancelation
        if cancelation is None and self._block is None:
            cancelation = self._pending_cancelation()
        if cancelation is None:
            cancelation = next(self._cancelations_around(), None)
        if cancelation is not None:
            raise error_for(cancelation, self.context)

    def shield(self, timeout: float | timedelta | None = None) -> Shield[Self]:
        """Protect a section of the block from being interrupted, for *timeout* seconds at most.

        ::

            async with operation.shield(timeout=5):
                await commit()

        The operation can still be cancelled meanwhile; that takes effect at the first checkpoint after
        the section. On asyncio, a native ``Task.cancel()`` pierces every AnyIO shield, this one included.

        Args:
            timeout: The time budget, in seconds; ``None`` for no limit.

        Raises:
            TimeoutCancelation: On leaving a section that was interrupted since its budget was used up.
        """
        return Shield(self, seconds(timeout), self._shield_changed)

    # --- Work that belongs to it

    async def run_in_thread(
        self, function: Callable[..., T], /, *args: Any, abandon_on_cancel: bool = False, **kwargs: Any
    ) -> T:
        """Call *function* in a worker thread, as a part of this operation. Always a checkpoint.

        Nothing can interrupt a thread, so by default its end is waited for, even if the operation is
        cancelled meanwhile. A thread that should stop earlier asks: the context is the caller's, so
        ``current_operation().check()`` raises there once it is time to go.

        Outside of the operation's block, the thread belongs to an operation of its own that follows
        this one.

        Args:
            function: What to call.
            args: Its arguments.
            abandon_on_cancel: Whether to go on without the thread when cancelled. It still runs to its
                end, and what it returns or raises is lost.
            kwargs: Its keyword arguments.

        Returns:
            What *function* returns.

        Raises:
            CancelationError: If the operation was cancelled before; outside of its block, also if it
                is cancelled meanwhile.
            LifecycleError: If the operation has ended otherwise.
        """
        self.check()
        async with self._part():
            return await run_in_thread(
                partial(function, *args, **kwargs), abandon_on_cancel=abandon_on_cancel
            )

    def wrap(self, function: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Make a coroutine function that does what *function* does, as long as this operation runs.

        Called in the operation's block, it raises if the operation was cancelled, and else awaits
        *function*, which the block interrupts. Called elsewhere (in a task started before, or while the
        operation was not entered), it opens a block of its own that follows the operation.

        The coroutine raises ``CancelationError`` if the operation was cancelled, and `LifecycleError`
        if it has ended otherwise.
        """

        @wraps(function)
        async def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
            self.check()
            async with self._part():
                return await function(*args, **kwargs)

        return wrapped

    def stream(
        self,
        source: AsyncIterable[T],
        report_interval: int | None = None,
        buffer_partial: bool | int = False,
    ) -> CancelableAsyncIterator[T]:
        """Go through *source* as long as this operation runs: see `CancelableAsyncIterator`.

        ::

            async with Cancelable(timeout=30) as operation:
                async for row in operation.stream(rows()):
                    ...

        Args:
            source: An async iterable. It is closed when it ends, fails or is interrupted.
            report_interval: After how many items to report progress, each time.
            buffer_partial: How many of the latest items to keep: ``True`` for 1000.
        """
        return CancelableAsyncIterator(source, self, report_interval, buffer_partial)

    # --- Callbacks and progress

    def on_start(self, callback: Callable[[OperationContext], object]) -> Self:
        """Have *callback* called with the context once the block is entered. It may be async."""
        return self._on("start", callback)

    def on_progress(self, callback: Callable[[str, Any, Mapping[str, Any]], object]) -> Self:
        """Have *callback* called with id, message and metadata of each `report_progress`. It may be async."""
        return self._on("progress", callback)

    def on_complete(self, callback: Callable[[OperationContext], object]) -> Self:
        """Have *callback* called with the context after the block ran to its end. It may be async."""
        return self._on("complete", callback)

    def on_cancel(self, callback: Callable[[OperationContext], object]) -> Self:
        """Have *callback* called with the context after the block was cut short. It may be async."""
        return self._on("cancel", callback)

    def on_error(self, callback: Callable[[OperationContext, BaseException], object]) -> Self:
        """Have *callback* called with context and error after the block raised one. It may be async."""
        return self._on("error", callback)

    async def report_progress(self, message: Any, metadata: Mapping[str, Any] | None = None) -> None:
        """Tell observers and ``on_progress`` callbacks how far the operation is.

        A checkpoint only if an async callback is one.

        Raises:
            LifecycleError: If the operation is not running.
        """
        if self._status not in {OperationStatus.RUNNING, OperationStatus.SHIELDED}:
            raise LifecycleError(f"an operation that is {self._status} cannot report progress")
        await self._tell_progress(message, {} if metadata is None else metadata)

    async def _tell_progress(self, message: Any, metadata: Mapping[str, Any]) -> None:
        observers = watching(self._observers)
        if observers:
            told = dict(metadata)  # observers may keep it
            event = Progress(self.context, message, told, self._token, _operation=weakref.ref(self))
            notify_progress(observers, event)
        await run_all(self._callbacks.get("progress", ()), self.id, message, metadata)

    # --- The block

    async def __aenter__(self) -> Self:
        if self._block is not None:
            raise LifecycleError(
                f"{self!r} was entered already; a Cancelable serves one block, make a new one for each"
            )
        self._block = Block(self, self._name, self._token, self._limits())
        if self._sources:
            self._watch = Watch(self._sources, self._settle)
            await self._watch.open()
        self._block.open()
        try:
            self._become(OperationStatus.RUNNING)
            self._listen(self._block)
            if self._watch is not None:
                await self._watch.start()
            if "start" in self._callbacks:
                await run_all(self._callbacks["start"], self.context)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:  # not bool: to type checkers that would mean that blocks may be left quietly
        assert self._block is not None
        self._above_id = self._find_above_id()
        left = self._block.close(exc_type, exc, traceback)
        if self._watch is not None:
            left = await self._end_watch(self._watch, left)
        stopped = exc is not None and (left is None or self._is_own_error(left))
        await self._finish(self._block, left, stopped)
        if stopped:
            if self._raise_on_cancel and not isinstance(left, CancelationError):
                assert self.cancelation is not None
                raise error_for(self.cancelation, self.context) from exc
            return not self._raise_on_cancel
        if left is not None and left is not exc:
            _raise_again(left)
        return False

    def _listen(self, block: Block) -> None:
        block.cancel_with_token()
        for token in self._tokens:
            block.listen(token, self._settle)
        for parent in self._parents:
            block.listen(parent._token, partial(self._on_parent, parent))

    def _on_parent(self, parent: Cancelable, cancelation: Cancelation) -> None:
        self._settle(parent_cancelation(parent._name, cancelation))

    async def _end_watch(self, watch: Watch, left: BaseException | None) -> BaseException | None:
        """End the sources. If one of them has failed, and nothing else is wrong, its error goes on."""
        self._watch = None
        left = await watch.close(left)
        failures = watch.failures
        if failures and (left is None or self._is_own_error(left)):
            left = failures.pop(0)
        report(failures)
        return left

    def _limits(self) -> Iterator[tuple[float, Cancelation]]:
        if self._timeout is not None:
            message = f"timed out after {self._timeout:g} seconds"
            late = Cancelation(CancelationReason.TIMEOUT, message, at=time.time() + self._timeout)
            yield self._timeout, late
        for parent in self._parents:
            block = parent._block
            left = None if block is None or block.is_closed else block.remaining()
            if block is not None and left is not None:
                assert block.late is not None
                yield left, parent_cancelation(parent._name, block.late)

    def _pending_cancelation(self) -> Cancelation | None:
        """Why the block will be cancelled as soon as it is entered."""
        for token in self._tokens:
            if token.cancelation is not None:
                return token.cancelation
        for parent in self._parents:
            if parent.cancelation is not None:
                return parent_cancelation(parent._name, parent.cancelation)
        return None

    # --- Parts of it that run elsewhere

    @property
    def _is_around(self) -> bool:
        return self._block is not None and self._block.is_around

    def _part(self) -> AbstractAsyncContextManager[object]:
        """The block that work of this operation belongs in: its own, if this code runs there."""
        return nullcontext() if self._is_around else self._follow_alive()

    def _follow_alive(self) -> Cancelable:
        self.check()
        if self._status.is_final:
            raise LifecycleError(f"an operation that is {self._status} takes up no more work")
        return self.follow()

    def _cancelations_around(self) -> Iterator[Cancelation]:
        """Why operations around this one were cancelled, as far as that holds for its block, too."""
        if self._block is None or self._block.is_closed:
            return
        for outer in self._block.enclosing_owners():
            if outer.status is OperationStatus.SHIELDED:
                return
            if outer.cancelation is not None:
                yield outer.cancelation

    # --- How it ended

    async def _finish(self, block: Block, left: BaseException | None, stopped: bool) -> None:
        """Settle how the operation ended, and tell everyone."""
        if stopped:
            if block.late is not None:
                self._settle(block.late)  # no effect if the token was first
            self._become(OperationStatus.CANCELLED)
        elif left is None:
            self._become(OperationStatus.COMPLETED)
        elif all(self._is_from_outside(leaf) for leaf in leaves(left)):
            self._settle(block.outside_cancelation())
            self._become(OperationStatus.CANCELLED)
        else:
            self._error = repr(left)
            self._become(OperationStatus.FAILED)
        callbacks = self._callbacks.get(_EVENTS[self._status])
        if callbacks:
            await run_all(callbacks, self.context, *(() if self._error is None else (left,)))

    def _notice_deadline(self) -> None:
        """Tell the token that the deadline has passed: the scope tells only the block."""
        if self._block is not None and self._block.late is not None and self._block.is_late:
            self._settle(self._block.late)

    def _settle(self, cancelation: Cancelation) -> None:
        """Cancel the own token. Others may wait for it, too; their errors are not those of who caused it."""
        try:
            self._token.cancel_with(cancelation)
        except Exception as error:
            report([error])

    def _is_own_error(self, error: BaseException | None) -> bool:
        """Whether ``check()`` raised *error* in the block, for the very cancelation of this operation."""
        return error is not None and all(
            isinstance(leaf, CancelationError) and leaf.cancelation is self.cancelation
            for leaf in leaves(error)
        )

    def _is_from_outside(self, error: BaseException) -> bool:
        """Whether *error* is a cancelation of what is around the block, by a scope or by ``check()``."""
        if isinstance(error, CancelationError) and self._block is not None:
            causes = [outer.cancelation for outer in self._block.enclosing_owners()]
            return any(error.cancelation is cause for cause in causes)
        return isinstance(error, get_cancelled_exc_class())

    def _become(self, status: OperationStatus) -> None:
        previous = self._status
        check_transition(previous, status)
        self._status = status
        observers = watching(self._observers)
        if observers:
            event = Transition(self.context, previous, self._token, _operation=weakref.ref(self))
            notify_transition(observers, event)

    def _shield_changed(self, entered: bool) -> None:
        if self._status.is_final and not entered:
            return  # a section in a task that outlives the block
        shields = self._shields + (1 if entered else -1)
        if shields == int(entered):  # the first one in, or the last one out
            self._become(OperationStatus.SHIELDED if entered else OperationStatus.RUNNING)
        self._shields = shields

    def _find_above_id(self) -> str | None:
        above = self.parent or (None if self._block is None else next(self._block.enclosing_owners(), None))
        return self._above_id if above is None else above.id

    def _on(self, event: str, callback: Callable[..., object]) -> Self:
        self._callbacks.setdefault(event, []).append(checked(callback))
        return self


_EVENTS = {
    OperationStatus.COMPLETED: "complete",
    OperationStatus.CANCELLED: "cancel",
    OperationStatus.FAILED: "error",
}


@public
def current_operation() -> Cancelable | None:
    """Return the innermost operation whose block this code runs in, or ``None``.

    Tasks and worker threads started from a block see its operation too, for as long as it lasts.
    Never blocks.
    """
    return cast("Cancelable | None", current_owner())


def _raise_again(error: BaseException) -> None:
    """Raise *error* as it is: being raised here is no part of its story."""
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context
