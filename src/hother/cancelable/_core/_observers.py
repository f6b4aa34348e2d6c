"""How the outside watches operations: one call for each transition and each report of progress.

Registries, logs, metrics and test recorders are all observers, and nothing else is notified.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from ._lifecycle import OperationStatus
from ._operation import OperationContext
from ._public import public


@public
class Observer(Protocol):
    """Watches operations. Its methods are called in the operation's task: they must not block.

    What they raise never reaches the operation: it goes to `sys.excepthook` after the other
    observers have been told.
    """

    def on_transition(self, context: OperationContext, previous: OperationStatus) -> object:
        """Hear that an operation went from *previous* to ``context.status``."""

    def on_progress(self, context: OperationContext, message: Any, metadata: Mapping[str, Any]) -> object:
        """Hear that an operation reported progress."""


_everywhere: dict[object, Observer] = {}


@public
def add_observer(observer: Observer) -> Callable[[], None]:
    """Have *observer* told of every operation of this process. Safe in any thread; never blocks.

    To watch only some, hand the observer to the operations (``Cancelable(observers=[...])``).

    Returns:
        A function that takes the observer back. Calling it twice does nothing.
    """
    handle = object()
    _everywhere[handle] = observer

    def remove() -> None:
        _everywhere.pop(handle, None)

    return remove


def watching(own: tuple[Observer, ...]) -> tuple[Observer, ...]:
    """Return all observers of an operation: its *own* ones, and those that watch every operation."""
    return (*own, *_everywhere.values()) if _everywhere else own


def notify_transition(
    observers: Iterable[Observer], context: OperationContext, previous: OperationStatus
) -> None:
    """Tell all *observers* of a transition."""
    _tell_all(observers, lambda observer: observer.on_transition(context, previous))


def notify_progress(
    observers: Iterable[Observer], context: OperationContext, message: Any, metadata: Mapping[str, Any]
) -> None:
    """Tell all *observers* of progress."""
    _tell_all(observers, lambda observer: observer.on_progress(context, message, metadata))


def _tell_all(observers: Iterable[Observer], tell: Callable[[Observer], object]) -> None:
    errors: list[Exception] = []
    for observer in observers:
        try:
            tell(observer)
        except Exception as error:
            errors.append(error)
    report(errors)


def report(errors: Iterable[Exception]) -> None:
    """Report errors of onlookers: they must be seen, and must not break what was looked at.

    They go where uncaught exceptions of a program go (standard error, or a crash reporter), since
    there is no caller who could handle them.
    """
    for error in errors:
        sys.excepthook(type(error), error, error.__traceback__)
