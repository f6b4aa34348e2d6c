"""Cancelable: a token, sources, a deadline and a lifecycle around one ``async with`` block.

The block (`_block`) catches the cancelation that it caused; this module turns that into a status, tells
those who listen, and raises a `CancelationError`. A cancelation from outside passes through as the
backend's own exception. By the time that anything of the user's runs, nothing is registered any more.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from functools import partial, wraps
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar, cast

from anyio.lowlevel import checkpoint_if_cancelled

from . import _causes, _deadline
from ._block import Block, current_owner
from ._callbacks import checked, run_all
from ._core._errors import LifecycleError, error_for
from ._core._lifecycle import PENDING, TRANSITIONS, OperationStatus, refuse_transition
from ._core._observers import (
    Observer,
    Progress,
    Transition,
    everywhere,
    notify_progress,
    notify_transition,
    watching,
)
from ._core._operation import OperationContext
from ._core._public import public
from ._core._reasons import Cancelation, CancelationReason
from ._core._report import report
from ._core._timeouts import seconds
from ._core._token import CancelationToken
from ._core._wakeup import CallSite, run_in
from ._options import OperationOptions, check_names, checked_policy, checked_terms, checked_tokens
from ._parts import cancelations_around, part_of
from ._running import enter, leave
from ._terms import USUAL
from .sources._source import Source, checked_sources

if TYPE_CHECKING:
    from datetime import timedelta

    from typing_extensions import ParamSpec, Self, TypeVarTuple, Unpack

    from ._cleanup import Cleanup
    from ._critical import Sections
    from ._iteration import CancelableAsyncIterator
    from ._shield import Shield
    from ._watch import Watch

    P = ParamSpec("P")
    Ts = TypeVarTuple("Ts")

T = TypeVar("T")

_NONE: tuple[()] = ()
_NO_CALLBACKS: Mapping[str, list[Callable[..., object]]] = {}


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
        # From entering; moved with the deadline.
        self._timeout = None if timeout is None else seconds(timeout)
        self._tokens = () if tokens is _NONE else checked_tokens(tokens)
        self._sources = () if sources is _NONE else checked_sources(sources)
        self._parents: tuple[Cancelable, ...] = ()
        self._leaders: tuple[Cancelable, ...] = ()  # whom it follows
        self._name: str | None = None
        self._raise_on_cancel = True
        self._observers: tuple[Observer, ...] = ()
        self._terms = USUAL
        if options:  # a dict of this call's own
            self._name = options.pop("name", None)
            self._raise_on_cancel = options.pop("raise_on_cancel", True)
            if options:
                check_names(options)
                self._take(options)

        self._status = PENDING
        self._token = CancelationToken()
        self._block: Block | None = None  # from entering on
        self._watch: Watch | None = None  # while inside, if there are sources
        self._tells_in_time = False  # whether the token is told of the deadline at once
        self._callbacks: Mapping[str, list[Callable[..., object]]] = _NO_CALLBACKS

    # What few operations have. What each is asked for is above: on Python 3.11, to read a default of the
    # class takes longer than to write it into the object.
    _given_id: str | None = None
    _random_id: str | None = None
    _above_id: str | None = None
    _entered_at: float | None = None  # on the clock of the block's loop
    _unless: Callable[[Cancelation], bool] | None = None
    _shields = 0
    _sections: Sections | None = None
    _error: str | None = None
    _metadata: dict[str, Any] | None = None
    _followers: dict[object, Cancelable] | None = None  # those that go by its deadline

    def _take(self, options: OperationOptions) -> None:
        """Take those that few operations have."""
        self._given_id = options.get("operation_id")
        parent = options.get("parent")
        if parent is not None:
            if not isinstance(parent, Cancelable):
                raise TypeError(f"parent must be a Cancelable, got {parent!r}")
            self._parents = (parent,)
        metadata = options.get("metadata")
        if metadata:
            self._metadata = dict(metadata)
        if "observers" in options:
            self._observers = tuple(options["observers"])
        if "unless" in options:
            self._unless = checked_policy(options["unless"])
        if "grace" in options or "cleanup_budget" in options:
            self._terms = checked_terms(options)

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
        parents (each under the policy of the one that brings it), callbacks, observers and metadata; name,
        grace, clean-up budget and ``raise_on_cancel`` come from *self*. Cancelling one of them cancels the
        new one; none of them needs to be entered.

        Raises:
            TypeError: If one of *others* is not a `Cancelable`.
        """
        parts = (self, *others)
        for part in parts:
            if not isinstance(part, Cancelable):
                raise TypeError(f"combine() takes Cancelables, got {part!r}")
        combined = self._new_follower(parts)
        combined._metadata = {key: value for part in reversed(parts) for key, value in part.metadata.items()}
        combined._raise_on_cancel = self._raise_on_cancel
        combined._observers = tuple(dict.fromkeys(it for part in parts for it in part._observers))
        for part in parts:
            for event, callbacks in part._callbacks.items():
                combined._callbacks_of(event).extend(callbacks)
        return combined

    def follow(self) -> Cancelable:
        """Make a new operation that is cancelled with this one, and when this one's time is up.

        Unlike a child, it is cancelled for the same reason; unlike `combine`, it takes no callbacks
        over. Cancelling it leaves this one alone. This one need not be entered. When this one's deadline is
        moved, so is the new one's.
        """
        return self._new_follower((self,))

    def detached(
        self, *, timeout: float | timedelta | None = None, **options: Unpack[OperationOptions]
    ) -> Cancelable:
        """Make a new operation that knows this one, and is not cancelled with it.

        It takes over name, metadata and observers, and tells this one's id as that of its parent. Neither
        this operation nor anything else around its block interrupts it, in whatever task that is; a native
        ``Task.cancel()`` of asyncio does. For work that must be done although nobody waits for it any more:
        give it a *timeout*. Its block is what is kept apart so: go through a `stream` of it in there. A step
        of one elsewhere ends with what is around that.

        Args:
            timeout: How long the block may take, in seconds, counted from entering it.
            options: Instead of what it takes over.
        """
        taken_over: OperationOptions = {
            "name": self._name,
            "metadata": self.metadata,
            "observers": self._observers,
        }
        taken_over.update(options)
        detached = Cancelable(timeout=timeout, **taken_over)
        detached._terms = replace(detached._terms, is_detached=True)
        detached._above_id = self.id
        return detached

    def _new_follower(self, leaders: tuple[Cancelable, ...]) -> Cancelable:
        budget = None if self._cleanup is None else self._cleanup.seconds
        follower = Cancelable(name=self._name, grace=self._terms.grace, cleanup_budget=budget)
        follower._leaders = leaders
        return follower

    # --- Looking at it. Safe in any thread.

    def __repr__(self) -> str:
        name = f" {self._name!r}" if self._name else ""
        return f"<{type(self).__name__}{name} {self._status} at {id(self):#x}>"

    @property
    def id(self) -> str:
        """The operation's id: 16 random hexadecimal digits, unless it was given another."""
        # Made when first asked for, by whichever thread is first.
        known = self._given_id or self._random_id
        return known or self.__dict__.setdefault("_random_id", os.urandom(8).hex())

    @property
    def name(self) -> str | None:
        """The operation's name, for errors and logs."""
        return self._name

    @property
    def metadata(self) -> dict[str, Any]:
        """What was written on the operation. It may be changed."""
        # Like the id: made by whichever thread is first.
        metadata: dict[str, Any] = self.__dict__.setdefault("_metadata", {})
        return metadata

    @property
    def parent(self) -> Cancelable | None:
        """The operation whose cancelation holds for this one, too."""
        return self._parents[0] if self._parents else None

    @property
    def token(self) -> CancelationToken:
        """The operation's own token. Cancelling it cancels this operation, and not what it was made of.

        Those who wait for it hear of everything that cancels the operation, its deadline included.
        """
        self._tell_in_time()
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
    def causes(self) -> tuple[Cancelation, ...]:
        """All that asked for its cancelation, in order: the first one decided, and is `cancelation`.

        The first 16 are kept. What its policy declined is in `declined`.
        """
        self._notice_deadline()
        return self._token.causes

    @property
    def declined(self) -> tuple[Cancelation, ...]:
        """What asked for its cancelation in vain, since ``unless`` declined; in order, the first 16."""
        return _causes.declined(self)

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
            metadata=dict(self._metadata or ()),
        )

    @property
    def deadline(self) -> float:
        """When the operation times out, on the event loop's clock (seconds), its parents' deadlines included.

        Infinite if it does not, or has not been entered. See `extend` and `reschedule`.
        """
        return inf if self._block is None else self._block.deadline

    def remaining(self) -> float | None:
        """How many seconds are left until the deadline: never less than 0; ``None`` without a deadline.

        Before the block is entered, that is the whole timeout.
        """
        return _deadline.remaining(self) if self._block is None else self._block.remaining()

    # --- Moving its deadline. Safe in any thread.

    def extend(self, timeout: float | timedelta) -> bool:
        """Give the operation more time: move its deadline. Without one, nothing changes.

        Children and followers have the new deadline, too. The deadlines of its own parents, and of those
        that it follows, hold as before. Before the block is entered, its timeout is made longer.

        Called in another thread than the block's, it takes effect as soon as the loop gets to it, if that is
        before the old deadline.

        Args:
            timeout: How much to add, in seconds.

        Returns:
            Whether it was not too late: what was cancelled or has timed out stays so, and what has ended is
            over. Then nothing changes.

        Raises:
            TypeError: If *timeout* is not a time.
            ValueError: If it is negative or NaN. Use `reschedule` to shorten the time.
        """
        more = seconds(timeout)
        return _deadline.extend(self, inf if more is None else more)

    def reschedule(self, timeout: float | timedelta | None) -> bool:
        """Set the operation's deadline anew: *timeout* seconds from now, sooner or later than before.

        Before the block is entered, that is its new timeout, counted from there; and from their own
        beginning for those that follow it already. Otherwise like `extend`.

        Args:
            timeout: How long it may still take, in seconds; ``None`` to lift the deadline.

        Returns:
            Whether it was not too late: see `extend`.

        Raises:
            TypeError: If *timeout* is not a time.
            ValueError: If it is negative or NaN.
        """
        return _deadline.reschedule(self, seconds(timeout))

    # --- Cancelling it

    def cancel(
        self,
        reason: CancelationReason = CancelationReason.MANUAL,
        message: str | None = None,
        *,
        by: str | None = None,
    ) -> bool:
        """Cancel the operation and its children, in whatever tasks and threads they run.

        With a grace period, its token is cancelled now, and its block interrupted later. What ``unless``
        says does not matter. Safe in any thread and in signal handlers; never blocks. Before the block is
        entered, it will be interrupted at its first checkpoint; after it was left, nothing happens to it.

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
            cancelation = _causes.pending(self)
        if cancelation is None:
            cancelation = next(cancelations_around(self), None)
        if cancelation is not None:
            raise error_for(cancelation, self.context)

    def shield(self, timeout: float | timedelta | None = None) -> Shield[Self]:
        """Protect a section of the block from being interrupted, for *timeout* seconds at most.

        ::

            async with operation.shield(timeout=5):
                await commit()

        The operation can still be cancelled meanwhile; that takes effect at the first checkpoint after
        the section. On asyncio, a native ``Task.cancel()`` pierces every AnyIO shield, this one included; see
        `critical`. If the operation has a clean-up budget, the section ends with that at the latest.

        Args:
            timeout: The time budget, in seconds; ``None`` for no limit.

        Raises:
            TimeoutCancelation: On leaving a section that was interrupted since its budget was used up.
        """
        from ._shield import Shield

        return Shield(self, seconds(timeout), self._cleanup, self._shield_changed)

    async def critical(
        self,
        function: Callable[[Unpack[Ts]], Awaitable[T]],
        /,
        *args: Unpack[Ts],
        timeout: float | timedelta | None = None,
    ) -> T:
        """Await *function*, either not at all or to its end. Always a checkpoint.

        ::

            receipt = await operation.critical(charge, card, timeout=10)

        If the operation, or anything around it, has been cancelled before, *function* is not called.
        Once it was, nothing interrupts it but its *timeout* (or the operation's clean-up budget): not
        a cancelation in the same instant, and not a native ``Task.cancel()`` of asyncio either, which goes
        on once the section has ended. *function* has a task of its own, which is waited for right here; and
        if this is not the task of the operation's block, that is not left before, either.

        Args:
            function: A coroutine function.
            args: Its arguments.
            timeout: The time budget, in seconds; ``None`` for no limit.

        Returns:
            What *function* returns.

        Raises:
            CancelationError: If the operation was cancelled before; or, on asyncio, if somebody has cancelled
                the section's own task.
            LifecycleError: If the operation is not running.
            TimeoutCancelation: If *function* was interrupted since the budget was used up.
        """
        from ._critical import Sections, run_to_end

        budget = seconds(timeout)
        await checkpoint_if_cancelled()
        self.check()
        sections = self.__dict__.setdefault("_sections", Sections())
        self._shield_changed(True)
        try:
            with sections:
                return await run_to_end(partial(function, *args), budget, self._cleanup)
        finally:
            self._shield_changed(False)

    def call_soon(self, function: Callable[[Unpack[Ts]], object], /, *args: Unpack[Ts]) -> bool:
        """Have *function* called by the event loop of the block. Safe in any thread; never blocks.

        It is called once, as soon as the loop gets to it, between the steps of its tasks, and is part of
        none of them; if the block is left before that, it is not called. What it raises goes to
        `sys.excepthook`.

        Args:
            function: A plain function.
            args: Its arguments.

        Returns:
            Whether the block was still open.

        Raises:
            LifecycleError: If the block has not been entered: it has no event loop.
        """
        if self._block is None:
            raise LifecycleError(f"an operation that is {self._status} has no event loop yet")
        return self._block.call_soon(partial(function, *args))

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
        from ._threads import run_in_thread

        self.check()
        async with part_of(self):
            return await run_in_thread(
                partial(function, *args, **kwargs), abandon_on_cancel=abandon_on_cancel
            )

    def wrap(self, function: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Make a coroutine function that does what *function* does, as long as this operation runs.

        Called in the operation's block, it raises if the operation was cancelled, and else awaits
        *function*, which the block interrupts. Called elsewhere (in another task, or while the operation
        was not entered), it opens a block of its own that follows the operation.

        The coroutine raises ``CancelationError`` if the operation was cancelled, and `LifecycleError`
        if it has ended otherwise.
        """

        @wraps(function)
        async def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
            self.check()
            async with part_of(self):
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
        from ._iteration import CancelableAsyncIterator

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

    # No methods around these: each would be one more coroutine.
    __aenter__ = enter
    __aexit__ = leave

    def _settle(self, cancelation: Cancelation, site: CallSite | None = None) -> None:
        """Cancel the own token. Others may wait for it, too; their errors are not those of who caused it."""
        try:
            self._token._cancel_with(cancelation, site or CallSite())
        except Exception as error:
            report([error])

    def _settle_stopped(self) -> None:
        """Tell the token, if it does not know, why the block was stopped: then it was the deadline."""
        if not self._token._causes:
            self._time_is_up()

    def _notice_deadline(self) -> None:
        """Tell the token that the deadline has passed: the scope tells only the block."""
        if self._block is not None and not self._token.is_cancelled:
            self._block.notice_deadline()

    @property
    def _cleanup(self) -> Cleanup | None:
        """What keeps the time of all clean-up, if that has a budget."""
        return self._terms.cleanup

    def _tell_in_time(self) -> None:
        """Have the token told of the deadline at the time that it passes, though nobody asks."""
        if not self._tells_in_time:
            self._tells_in_time = True
            block = self._block
            if block is not None and not block.is_closed:
                run_in(block.loop, block.keep_time)

    def _time_is_up(self) -> None:
        self._settle(_deadline.time_out(self))

    def _become(self, status: OperationStatus) -> None:
        previous = self._status
        if status not in TRANSITIONS[previous]:
            refuse_transition(previous, status)
        self._status = status
        if self._observers or everywhere:
            self._tell_transition(previous)

    def _tell_transition(self, previous: OperationStatus) -> None:
        event = Transition(self.context, previous, self._token, _operation=weakref.ref(self))
        notify_transition(watching(self._observers), event)

    def _shield_changed(self, entered: bool) -> None:
        if self._status.is_final:
            if entered:
                refuse_transition(self._status, OperationStatus.SHIELDED)
            return  # a section in a task that outlives the block
        shields = self._shields + (1 if entered else -1)
        if shields == int(entered):  # the first one in, or the last one out
            self._become(OperationStatus.SHIELDED if entered else OperationStatus.RUNNING)
        self._shields = shields

    def _keep_above_id(self) -> None:
        """Keep the id of the operation above, which may be gone once the block was left."""
        self._above_id = self._find_above_id()

    def _find_above_id(self) -> str | None:
        above = self.parent or (None if self._block is None else next(self._block.enclosing_owners(), None))
        return self._above_id if above is None else above.id

    def _on(self, event: str, callback: Callable[..., object]) -> Self:
        self._callbacks_of(event).append(checked(callback))
        return self

    def _callbacks_of(self, event: str) -> list[Callable[..., object]]:
        if event not in self._callbacks:
            self._callbacks = {**self._callbacks, event: []}
        return self._callbacks[event]


@public
def current_operation() -> Cancelable | None:
    """Return the innermost operation whose block this code runs in, or ``None``.

    Tasks and worker threads started from a block see its operation too, for as long as it lasts.
    Never blocks.
    """
    return cast("Cancelable | None", current_owner())
