"""The registry: an observer that keeps account of operations, and can cancel them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias, final

from .._core._lifecycle import OperationStatus
from .._core._observers import Progress, Transition, add_observer
from .._core._operation import OperationContext
from .._core._public import public
from .._core._reasons import CancelationReason
from .._core._timeouts import seconds
from ._events import Listeners, OperationEvents
from ._filter import Filter, OperationFilter
from ._history import History
from ._live import Entry, LiveOperations
from ._statistics import Outcomes, RegistryStatistics

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

# In the class, `list` is its method.
Contexts: TypeAlias = list[OperationContext]
Entries: TypeAlias = list[Entry]
Errors: TypeAlias = list[BaseException]

_RUNS = frozenset({OperationStatus.RUNNING, OperationStatus.SHIELDED})
_default: dict[None, OperationRegistry] = {}


@public
@final
class OperationRegistry:
    """Knows which operations run, and how the latest have ended; cancels them by id, name or what you like.

    It is an observer. Have it watch every operation of the process (`install`), or those for which it
    was made::

        with OperationRegistry() as registry:  # watches all of them, until the block is left
            ...

        registry = OperationRegistry()
        async with Cancelable(observers=[registry]):
            ...

    An operation is in it from entering its block to leaving it. The registry keeps none alive: what it
    returns are snapshots. All methods are plain, never block, and are safe in any thread and in signal
    handlers.

    Args:
        history: How many operations that have ended to remember, at most.
        history_age: For how long to remember them, in seconds; ``None`` for no limit.
        samples: Of how many operations to keep the times, for the percentiles of `statistics`: the
            latest count.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If *history* or *history_age* is negative, or *samples* is not positive.
    """

    __slots__ = ("__weakref__", "_history", "_installed", "_listeners", "_live", "_outcomes")

    def __init__(
        self,
        *,
        history: int = 1000,
        history_age: float | timedelta | None = 3600.0,
        samples: int = 1000,
    ) -> None:
        age = seconds(history_age, "history_age")
        self._live = LiveOperations()
        self._history = History(_at_least(0, history, "history"), inf if age is None else age)
        self._outcomes = Outcomes(_at_least(1, samples, "samples"))
        self._listeners = Listeners()
        # Holds at most one value: a dict rather than an attribute, for its setdefault().
        self._installed: dict[None, Callable[[], None]] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} with {len(self)} running at {id(self):#x}>"

    # --- Watching

    @classmethod
    def default(cls) -> OperationRegistry:
        """Return the registry of this process. It is made, and begins to watch, when first asked for."""
        registry = _default.get(None) or _default.setdefault(None, cls())
        return registry.install()

    def install(self) -> Self:
        """Watch every operation of this process that is entered from now on. Doing it twice does nothing."""
        if not self._installed:
            remove = add_observer(self)
            if self._installed.setdefault(None, remove) is not remove:
                remove()
        return self

    def uninstall(self) -> None:
        """Stop watching, and forget what runs; history and statistics stay."""
        remove = self._installed.pop(None, None)
        if remove is not None:
            remove()
            self._live.clear()

    def __enter__(self) -> Self:
        return self.install()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.uninstall()

    # --- Looking

    def __len__(self) -> int:
        """How many operations run."""
        return len(self._live)

    def __bool__(self) -> bool:
        """Always true: a registry in which nothing runs is a registry."""
        return True

    def __contains__(self, operation: object) -> bool:
        """Whether an operation runs that has this id, or of which this is a snapshot."""
        return isinstance(operation, (str, OperationContext)) and bool(self._find(operation))

    def get(self, operation_id: str) -> OperationContext | None:
        """Return a snapshot of the operation that runs with this id; ``None`` if there is none.

        Of several with the same id, the one that was entered last.
        """
        contexts = (entry.snapshot() for entry in reversed(self._live.named(operation_id)))
        return next((context for context in contexts if context is not None), None)

    def list(self, **wanted: Unpack[OperationFilter]) -> Contexts:
        """Return snapshots of the operations that run, in the order in which they were entered.

        Args:
            wanted: Which of them: see `OperationFilter`.

        Raises:
            TypeError: If there is no such filter.
            ValueError: If a status does not exist, or an age is negative or NaN.
        """
        return [context for _, context in self._live.matching(Filter(wanted))]

    def history(self, **wanted: Unpack[OperationFilter]) -> Contexts:
        """Return how the latest operations have ended, in that order. Otherwise like `list`."""
        matches = Filter(wanted).matches
        return [context for context in self._history.contexts() if matches(context)]

    def statistics(self) -> RegistryStatistics:
        """Return how many operations ended how, and how long they took."""
        return self._outcomes.statistics(running=len(self))

    def events(self, *, buffer: int = 1000, **wanted: Unpack[OperationFilter]) -> OperationEvents:
        """Listen to what happens to operations from now on, in an ``async for``.

        There may be any number of listeners, in any event loops, and each has all events.

        Args:
            buffer: How many events may wait to be fetched. If there are more, the oldest are dropped.
            wanted: Of which operations: see `OperationFilter`.

        Raises:
            TypeError: If there is no such filter, or *buffer* is not a number.
            ValueError: If *buffer* is not positive, a status does not exist, or an age is negative or NaN.
        """
        return self._listeners.add(Filter(wanted), _at_least(1, buffer, "buffer"))

    # --- Cancelling

    def cancel(
        self,
        operation: str | OperationContext,
        reason: CancelationReason = CancelationReason.MANUAL,
        message: str | None = None,
        *,
        by: str | None = None,
    ) -> bool:
        """Cancel one operation.

        An id that you gave yourself may have come back since you saw it. So cancel by snapshot, if you
        have one: that is the very operation of which it was made, or none.

        Args:
            operation: Its id, or a snapshot of it.
            reason: What asked for it.
            message: What to tell a human about it.
            by: Who asked, for logs.

        Returns:
            Whether it runs, and this was its first cancelation.

        Raises:
            TypeError: If *operation* is neither, or *reason* not a `CancelationReason`.
            LookupError: If several operations run that have this id. None of them is cancelled then.
            BaseException: What a callback of its token raised, after all of them have run.
        """
        if not isinstance(operation, (str, OperationContext)):
            raise TypeError(f"cancel() takes the id of an operation, or its context, got {operation!r}")
        _check_reason(reason)
        found = self._find(operation)
        if len(found) > 1:
            raise LookupError(
                f"{len(found)} operations run with the id {operation!r}: cancel one by its context, or all"
                f" of them with cancel_all(id={operation!r})"
            )
        return bool(found) and found[0].cancel(reason, message, by)

    def cancel_all(
        self,
        reason: CancelationReason = CancelationReason.MANUAL,
        message: str | None = None,
        *,
        by: str | None = None,
        **wanted: Unpack[OperationFilter],
    ) -> int:
        """Cancel all operations, or all that are meant.

        Args:
            reason: What asked for it.
            message: What to tell a human about it.
            by: Who asked, for logs.
            wanted: Which of them: see `OperationFilter`.

        Returns:
            How many were cancelled by this; those that were cancelled before do not count.

        Raises:
            TypeError: If there is no such filter, or *reason* is not a `CancelationReason`.
            ValueError: If a status does not exist, or an age is negative or NaN.
            BaseException: What callbacks of tokens raised, after all operations were cancelled; an
                exception group if there was more than one.
        """
        _check_reason(reason)
        errors: Errors = []
        # Chosen before the first is cancelled, since that may change the others.
        chosen = [entry for entry, _ in self._live.matching(Filter(wanted))]
        cancelled = sum(_cancel(partial(entry.cancel, reason, message, by), errors) for entry in chosen)
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise BaseExceptionGroup("callbacks of cancelled operations failed", errors)
        return cancelled

    # --- What it hears, as an observer

    def on_transition(self, event: Transition) -> None:
        """Hear that an operation went on."""
        if not event.context.status.is_final:
            if not self._live.hear(event):
                return
        elif self._live.remove(id(event.token)):
            self._history.add(event.at, event.context)
            self._outcomes.add(event.context)
        else:
            return  # heard of before, by being its observer twice; or of one that was never here
        self._listeners.tell(event)

    def on_progress(self, event: Progress) -> None:
        """Hear that an operation reported progress."""
        # A stream reports for an operation that is not entered, too, or was left.
        if event.context.status not in _RUNS or self._live.hear(event):
            self._listeners.tell(event)

    def _find(self, operation: str | OperationContext) -> Entries:
        if isinstance(operation, str):
            return self._live.named(operation)
        return [
            entry
            for entry in self._live.named(operation.id)
            if entry.context.started_at == operation.started_at
        ]


def _cancel(cancel: Callable[[], bool], errors: Errors) -> bool:
    try:
        return cancel()
    except BaseException as error:
        errors.append(error)
        return True


def _check_reason(reason: CancelationReason) -> None:
    if not isinstance(reason, CancelationReason):
        raise TypeError(f"reason must be a CancelationReason, got {reason!r}")


def _at_least(least: int, value: int, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}")
    return value
