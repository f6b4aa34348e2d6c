"""The block of an operation while it runs: the scope that stops it, its deadline, and what it registered.

1. The token says that the operation should stop; the scope stops it. A callback on the token cancels
   the scope, always in the scope's own loop; or, if there is a grace period, sets the scope's deadline to
   the end of it.
2. A timeout is the scope's deadline; no task waits for it. There is a timer only if the token has to know of
   the deadline at once: for a grace period, or since somebody else listens to the token.
3. The flag of an enclosing operation may be up before its scope is cancelled, if a thread raised it.
   Then the enclosing scope comes first: else this block would take the cancelation for its own.
4. All that opening registers (callbacks on tokens, the current operation) closing takes away, or else makes
   nothing of: a block that is closed is nobody's current one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from math import inf
from time import time
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, final
from weakref import ref

from anyio.lowlevel import EventLoopToken

from ._core._reasons import Cancelation, CancelationReason
from ._core._report import report
from ._core._token import CancelationToken, Listener
from ._core._wakeup import CallSite, call_at, call_soon, current_place, describe, running_task
from ._terms import USUAL, Terms

if TYPE_CHECKING:

    class Hear(Protocol):
        """What is done about a cause, wherever it comes from."""

        def __call__(self, cause: Cancelation, site: CallSite | None = None, /) -> object: ...


# The blocks around this code, innermost first. All of them, since one that was left may be gone when
# a task that was started in it looks for those around it.
# A single one needs no tuple: many tasks have one block each.
Around: TypeAlias = "ref[Block] | tuple[ref[Block], ...]"
_current: ContextVar[Around] = ContextVar("current_blocks", default=())

# The operation that this thread works for: the current one there, even when its block was left.
_kept: ContextVar[Any] = ContextVar("kept_owner", default=None)


class Block(Listener):
    """One block, opened and closed by the same task.

    Other threads may ask how much time is left, and nothing else.

    Args:
        owner: The operation; kept alive until the block is closed. Its own token cancels the block. Its
            ``_time_is_up()`` is called when the deadline has passed.
    """

    __slots__ = (
        "__weakref__",
        "_around",
        "_clock",
        "_closed",
        "_hard_deadline",
        "_links",
        "_native_token",
        "_owner",
        "_runtime",
        "_scope",
        "_take_timer_back",
        "_task",
        "_terms",
        "_token",
        "deadline",
        "opened_at",
        "outer",
        "started_at",
    )

    def __init__(self, owner: Any) -> None:
        # Fails, with nothing to undo, where no event loop runs.
        place = current_place()
        self._runtime, self._native_token, self._clock, self.opened_at, self._task = place
        # Without arguments: by keyword, they take as long as the scope.
        self._scope = self._runtime.scopes()
        self.started_at = time()  #: in seconds since the epoch
        self._closed: float | None = None  # when, on the loop's clock
        self.deadline = inf  #: on the loop's clock
        self._hard_deadline = inf  # when the grace period of a cancelation is over
        self._owner: Any = owner  # until it is closed
        self._token: CancelationToken = owner._token
        self._terms: Terms = owner._terms
        self._around: Around = _current.get()
        self.outer: tuple[ref[Block], ...] = ()  #: of those around it, whom it has to do with
        if self._around:
            self._around = _without_closed(self._around)
            self.outer = _as_tuple(self._around)
        self._take_timer_back: Callable[[], object] | None = None
        self._links: tuple[CancelationToken | Callable[[], object], ...] = ()

    # --- Safe in any thread

    @property
    def loop(self) -> EventLoopToken:
        """The loop that it runs in."""
        return EventLoopToken(self._runtime.backend, self._native_token)

    @property
    def is_late(self) -> bool:
        """Whether the deadline has passed while the block is open."""
        return self.deadline != inf and self._closed is None and self.now() >= self.deadline

    def remaining(self) -> float | None:
        """How many seconds are left, never less than 0; ``None`` without a deadline."""
        return None if self.deadline == inf else max(self.deadline - self.now(), 0.0)

    def elapsed(self) -> float:
        """How many seconds the block has run, or ran."""
        return (self.now() if self._closed is None else self._closed) - self.opened_at

    def now(self) -> float:
        """The time on the loop's clock."""
        return self._runtime.time(self._clock)

    def in_own_time(self, other: Block) -> float:
        """The deadline of *other* on the clock of this block's loop."""
        if self._clock is other._clock:
            return other.deadline
        return self.now() + (other.deadline - other.now())

    @property
    def is_closed(self) -> bool:
        """Whether the block was left."""
        return self._closed is not None

    @property
    def is_of_this_task(self) -> bool:
        """Whether the block is open, and the task that opened it runs this code."""
        task = self._task  # read before asking: another thread may be closing the block, and run no task
        return task is not None and self._closed is None and task is running_task(self._native_token)

    @property
    def is_around(self) -> bool:
        """Whether the block is open, and this code runs in it, or in a task that was started from there."""
        return self._closed is None and any(block() is self for block in current_blocks())

    def call_soon(self, function: Callable[[], object]) -> bool:
        """Have *function* called by the loop, if the block is open then. Tells whether it is now."""
        if self._closed is None:
            call_soon(self.loop, self._call, function)
        return self._closed is None

    # --- In the block's task

    def follow_up(self, previous: Block) -> None:
        """Take over how much of the grace period is left."""
        if previous._hard_deadline != inf:
            self._hard_deadline = self.now() + (previous._hard_deadline - previous.now())
            self._scope.deadline = self._hard_deadline

    def open(self, deadline: float) -> None:
        """Enter the scope. Whoever calls this has to call `close`."""
        if deadline != inf:
            self._set_out(deadline)
        if self._terms is not USUAL:
            self._apply_terms()
        self._scope.__enter__()
        reference: ref[Block] = ref(self)
        _current.set((reference, *self.outer) if self._around else reference)
        self._token._belong_to(self)

    def _set_out(self, deadline: float) -> None:
        self.deadline = deadline
        self._scope.deadline = self.interrupted_at
        if self._tells_in_time:
            self.keep_time()

    def _apply_terms(self) -> None:
        if self._terms.is_detached:
            self.outer = ()
            self._scope.shield = True
        self._tell_cleanup()

    def set_deadline(self, deadline: float) -> None:
        """Move the deadline, which is over when it has passed: then nothing is moved any more."""
        self.deadline = deadline
        if self._closed is None:
            self._scope.deadline = self.interrupted_at
            self._tell_cleanup()
            self.keep_time()

    def keep_time(self) -> None:
        """Have the token told of the deadline when it comes, if that is asked for."""
        if self._take_timer_back is not None:
            self._take_timer_back()
            self._take_timer_back = None
        if self.deadline != inf and self._closed is None and self._tells_in_time:
            self._take_timer_back = call_at(self.loop, self.deadline, self._ring)

    @property
    def _tells_in_time(self) -> bool:
        """Whether the token must hear of the deadline at once."""
        owner = self._owner
        return self._terms.grace > 0 or (owner is not None and owner._tells_in_time)

    @property
    def interrupted_at(self) -> float:
        """When the block is interrupted, as far as that is known."""
        at = self.deadline + self._terms.grace
        return at if at < self._hard_deadline else self._hard_deadline

    def follow(self, tokens: tuple[CancelationToken, ...]) -> None:
        """Have the operation cancelled with any of *tokens*, for as long as the block is open."""
        self._links += tokens
        for token in tokens:
            token._listen(self)

    def listen(self, token: CancelationToken, hear: Hear) -> None:
        """Have *hear* called for each cause of *token*, for as long as the block is open."""
        listener = _Hearing(token, hear)
        self.on_close(listener.remove)
        token._listen(listener)

    def on_close(self, callback: Callable[[], object]) -> None:
        """Have *callback* called when the block is closed."""
        self._links += (callback,)

    def hear(self, cause: Cancelation, site: CallSite) -> None:
        """Cancel the operation for *cause*, or stop if it is. Called wherever a token is cancelled."""
        token = self._token
        if not token._causes or token._causes[0] is not cause:  # it was another token, or this is no news
            try:
                if not token._cancel_by(self, cause, site):
                    return
            except Exception as error:  # it is that of somebody else, who waits for the token, too
                report([error])
                return
        # Once: ten thousand causes must not call the loop each. Twice (two threads at once) does no harm,
        # since the scope is cancelled already.
        if token._owner is self:
            token._owner = None
        else:
            token._leave(self)
        if site.here is self._native_token or site.is_in(self._native_token):
            # As `_cancel` does, which is called seldom: a call takes its time, and there are many blocks.
            why = site.why if site.cause is cause else site.describe(cause)
            if self._terms is USUAL and self._closed is None:
                self._hard_deadline = -inf
                cancel = self._runtime.cancel
                if cancel is None:
                    self._scope.cancel(why)
                else:
                    cancel(self._scope, why)
            else:
                self._cancel(why)
        else:
            call_soon(self.loop, self._cancel, site.describe(cause))

    def close(self, exc: BaseException | None) -> BaseException | None:  # noqa: C901 (each call would take its time)
        """Leave the scope, from which *exc* may be going out, and take away all that was registered.

        Returns:
            The exception that goes on: *exc*, or what was with it in a group; ``None`` if all of it
            was the scope's own cancelation.
        """
        if self.outer:
            self._cancel_enclosing()
        try:
            if exc is None:
                self._scope.__exit__(None, None, None)
                return None
            # Of the traceback, which the exception has, no scope of AnyIO's or Trio's wants to know.
            return None if self._scope.__exit__(type(exc), exc, None) else exc
        except BaseException as remaining:
            return remaining
        finally:
            self._closed = self._runtime.time(self._clock)
            self._owner = self._task = None
            token = self._token
            if token._owner is self or token._callbacks:
                token._leave(self)
            if self._take_timer_back is not None:
                self.keep_time()
            if self._links:
                for link in self._links:
                    if isinstance(link, CancelationToken):
                        link._callbacks.pop(self, None)
                    else:
                        link()
                self._links = ()
            # A single one may stay: it is closed, and to set the variable takes longer than to see that.
            if self._around:
                current = _current.get()
                if isinstance(current, tuple) and current and current[0]() is self:
                    _current.set(self._around)

    def outside_cancelation(self) -> Cancelation:
        """Tell why the block was cancelled from outside, as far as that can be known."""
        for outer in self._enclosing():
            outer.notice_deadline()
            owner, cause = outer._owner, outer._token.cancelation
            # It may run in another thread's loop, and be closed meanwhile.
            if owner is not None and cause is not None and outer.now() >= outer.interrupted_at:
                return parent_cancelation(owner._name, cause)
        return Cancelation(CancelationReason.EXTERNAL)

    def enclosing_owners(self) -> Iterator[Any]:
        """The operations around this one, from the inside out. Safe in any thread."""
        owners = (outer._owner for outer in self._enclosing())
        return (owner for owner in owners if owner is not None)

    def notice_deadline(self) -> None:
        """Tell the token if the deadline has passed: the scope tells only the block. Safe in any thread."""
        owner = self._owner
        if owner is not None and self.is_late:
            owner._time_is_up()

    def _call(self, function: Callable[[], object]) -> None:
        if self._closed is None:
            try:
                function()
            except Exception as error:  # nobody called who could be told
                report([error])

    def _ring(self) -> None:
        """Runs in the loop. Timers may come a bit early: then there is another one."""
        if self.is_late:
            self.notice_deadline()
        else:
            self.keep_time()

    def _cancel(self, why: str) -> None:
        """Runs in the loop, perhaps when the block is closed already."""
        if self._closed is not None:
            return
        if self._terms is USUAL:  # then nobody asks when that was
            self._hard_deadline = -inf
            self._interrupt(why)
            return
        over = self.now() + self._terms.grace
        if over < self._hard_deadline:
            self._hard_deadline = over
        if self._terms.grace:
            self._scope.deadline = self.interrupted_at
        else:
            self._interrupt(why)
        self._tell_cleanup()

    def _interrupt(self, why: str) -> None:
        cancel = self._runtime.cancel
        if cancel is None:
            self._scope.cancel(why)
        else:
            cancel(self._scope, why)

    def _tell_cleanup(self) -> None:
        if self._terms.cleanup is not None:
            self._terms.cleanup.begin_at(self.interrupted_at)

    def _cancel_enclosing(self) -> None:
        for outer in self._enclosing():
            cancelation = outer._token.cancelation
            if cancelation is not None and outer._native_token is self._native_token:
                outer._cancel(describe(cancelation))

    def _enclosing(self) -> Iterator[Block]:
        """The open blocks around this one, from the inside out."""
        return _open_blocks(self.outer)


@final
class _Hearing(Listener):
    """What a block has others do when a token is cancelled."""

    __slots__ = ("_hear", "_token")

    def __init__(self, token: CancelationToken, hear: Hear) -> None:
        self._token = token
        self._hear = hear

    def hear(self, cause: Cancelation, site: CallSite) -> object:
        """Have it done."""
        return self._hear(cause, site)

    def remove(self) -> None:
        """Have it hear nothing any more."""
        self._token._remove_callback(self)


def current_owner() -> Any:
    """Return the operation of the innermost open block that this code runs in, or ``None``."""
    kept = _kept.get()
    for reference in current_blocks():
        block = reference()
        if block is not None:
            owner = block._owner  # as one look: another thread may be closing the block
            if owner is not None:
                return owner
            if kept is not None and block._token is kept._token:
                return kept
    return None


def keep_current(owner: Any) -> None:
    """Have *owner*, the current operation, stay that in this context after its block was left."""
    _kept.set(owner)


def parent_cancelation(name: str | None, cause: Cancelation) -> Cancelation:
    """Make the record of a cancelation that follows from that of an operation above."""
    message = f"the parent operation was cancelled: {cause}"
    return Cancelation(CancelationReason.PARENT, message, by=name, cause=cause, at=cause.at)


def current_blocks() -> tuple[ref[Block], ...]:
    """Return the blocks around this code, innermost first; some may have been left."""
    return _as_tuple(_current.get())


def open_blocks() -> list[Block]:
    """Return the open blocks around this code, innermost first."""
    return list(_open_blocks(current_blocks()))


def _as_tuple(around: Around) -> tuple[ref[Block], ...]:
    """Return *around* as a tuple, which it may be."""
    return around if isinstance(around, tuple) else (around,)


def _without_closed(around: Around) -> Around:
    """Return what is *around*, the open blocks: as a rule all of them, and then the very same object."""
    if not isinstance(around, tuple):
        block = around()
        return () if block is None or block._closed is not None else around
    for reference in around:
        block = reference()
        if block is None or block._closed is not None:
            return tuple(ref(block) for block in _open_blocks(around))
    return around


def _open_blocks(references: tuple[ref[Block], ...]) -> Iterator[Block]:
    for reference in references:
        block = reference()
        if block is not None and block._closed is None:
            yield block
