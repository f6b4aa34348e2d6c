"""How the outside watches operations: one call for each transition and each report of progress.

Registries, logs, metrics and test recorders are all observers, and nothing else is notified.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol

from ._lifecycle import OperationStatus
from ._operation import OperationContext
from ._public import public
from ._report import report
from ._token import CancelationToken


@public
@dataclass(frozen=True, slots=True)
class Transition:
    """An operation went from one status to another. It keeps nothing of the operation alive but its token."""

    context: OperationContext  #: the operation at that moment; ``context.status`` is the new status
    previous: OperationStatus
    token: CancelationToken  #: cancelling it cancels the operation
    at: float = field(default_factory=monotonic)  #: when, in seconds of `time.monotonic`
    _operation: weakref.ref[Any] | None = field(default=None, repr=False, compare=False)


@public
@dataclass(frozen=True, slots=True)
class Progress:
    """An operation reported progress. It keeps nothing of the operation alive but its token."""

    context: OperationContext  #: the operation at that moment
    message: Any
    metadata: Mapping[str, Any]
    token: CancelationToken  #: cancelling it cancels the operation
    at: float = field(default_factory=monotonic)  #: when, in seconds of `time.monotonic`
    _operation: weakref.ref[Any] | None = field(default=None, repr=False, compare=False)


@public
class Observer(Protocol):
    """Watches operations. Its methods are called in the operation's task: they must not block.

    All observers get the same event, and may keep it. What they raise never reaches the operation: it
    goes to `sys.excepthook` after the other observers have been told.
    """

    def on_transition(self, event: Transition) -> object:
        """Hear that an operation went from ``event.previous`` to ``event.context.status``."""

    def on_progress(self, event: Progress) -> object:
        """Hear that an operation reported progress."""


everywhere: dict[object, Observer] = {}
"""Those who watch every operation."""


@public
def add_observer(observer: Observer) -> Callable[[], None]:
    """Have *observer* told of every operation of this process. Safe in any thread; never blocks.

    To watch only some, hand the observer to the operations (``Cancelable(observers=[...])``).

    Returns:
        A function that takes the observer back. Calling it twice does nothing.
    """
    handle = object()
    everywhere[handle] = observer

    def remove() -> None:
        everywhere.pop(handle, None)

    return remove


def watching(own: tuple[Observer, ...]) -> tuple[Observer, ...]:
    """Return all observers of an operation: its *own* ones, and those that watch every operation."""
    return (*own, *everywhere.values()) if everywhere else own


def notify_transition(observers: Iterable[Observer], event: Transition) -> None:
    """Tell all *observers* of a transition."""
    _tell_all((observer.on_transition for observer in observers), event)


def notify_progress(observers: Iterable[Observer], event: Progress) -> None:
    """Tell all *observers* of progress."""
    _tell_all((observer.on_progress for observer in observers), event)


def _tell_all(hearers: Iterable[Callable[[Any], object]], event: Transition | Progress) -> None:
    errors: list[Exception] = []
    for hear in hearers:
        try:
            hear(event)
        except Exception as error:
            errors.append(error)
    report(errors)
