"""The errors that a cancelled operation raises.

::

    Exception
    └─ CancelationError             a cancelable operation was cancelled; ``.cancelation`` says why
       ├─ TimeoutCancelation        its deadline passed; also a TimeoutError
       ├─ ManualCancelation         somebody called cancel()
       ├─ SignalCancelation         the process received a signal
       ├─ ConditionCancelation      a watched condition came true
       ├─ ParentCancelation         the operation that it belongs to was cancelled
       ├─ DisconnectCancelation     the client left before its response was complete
       └─ ShutdownCancelation       the server is shutting down
    RuntimeError
    └─ LifecycleError               an operation was used in a state that does not allow it

They are ordinary exceptions on purpose: the backend's own cancelled exception belongs to the backend,
which alone may make one. An operation catches the cancelation that it caused and raises one of these
instead; a cancelation that comes from outside passes through it untouched.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from ._public import public
from ._reasons import Cancelation, CancelationReason

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from ._operation import OperationContext


@public
class CancelationError(Exception):
    """A cancelable operation was cancelled.

    Raised by the block of a `Cancelable` that caught its own cancelation, and by ``check()`` of a
    cancelled token or operation. The subclass tells the reason; reasons without a subclass of their
    own (``ERROR``, ``EXTERNAL``) raise this class.

    Args:
        cancelation: Why it was cancelled.
        context: The operation as it stood then, if there was one.
    """

    cancelation: Cancelation
    context: OperationContext | None

    def __init__(self, cancelation: Cancelation, context: OperationContext | None = None) -> None:
        super().__init__(cancelation)
        self.cancelation = cancelation
        self.context = context

    def __str__(self) -> str:
        if self.context is None or self.context.name is None:
            return str(self.cancelation)
        return f"{self.context.name}: {self.cancelation}"

    @property
    def reason(self) -> CancelationReason:
        """What kind of event asked for the cancelation."""
        return self.cancelation.reason

    @property
    def message(self) -> str | None:
        """What the canceller had to say, if anything."""
        return self.cancelation.message


@public
class TimeoutCancelation(CancelationError, TimeoutError):
    """An operation's deadline passed."""


@public
class ManualCancelation(CancelationError):
    """Somebody called ``cancel()``."""


@public
class SignalCancelation(CancelationError):
    """The process received a signal that the operation listens for."""


@public
class ConditionCancelation(CancelationError):
    """A condition that the operation watches came true."""


@public
class ParentCancelation(CancelationError):
    """The operation's parent was cancelled; ``.cancelation.cause`` says why."""


@public
class DisconnectCancelation(CancelationError):
    """The client went away before its response was complete."""


@public
class ShutdownCancelation(CancelationError):
    """The server is shutting down."""


@public
class LifecycleError(RuntimeError):
    """An operation was used in a state that does not allow it. A mistake in the program, not an event."""


_ERRORS: dict[CancelationReason, type[CancelationError]] = {
    CancelationReason.TIMEOUT: TimeoutCancelation,
    CancelationReason.MANUAL: ManualCancelation,
    CancelationReason.SIGNAL: SignalCancelation,
    CancelationReason.CONDITION: ConditionCancelation,
    CancelationReason.PARENT: ParentCancelation,
    CancelationReason.DISCONNECT: DisconnectCancelation,
    CancelationReason.SHUTDOWN: ShutdownCancelation,
}


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Return the exceptions in a group and in the groups in it, or *error* itself if it is none."""
    if isinstance(error, BaseExceptionGroup):
        for part in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from leaves(part)
    else:
        yield error


def cancelation_in(error: BaseException) -> Cancelation | None:
    """Return the cancelation of a `CancelationError`, or of the first in a group of only such errors."""
    causes = [leaf.cancelation if isinstance(leaf, CancelationError) else None for leaf in leaves(error)]
    return None if None in causes else causes[0]


def error_for(cancelation: Cancelation, context: OperationContext | None = None) -> CancelationError:
    """Make the error that *cancelation* raises. Never blocks; safe in any thread."""
    return _ERRORS.get(cancelation.reason, CancelationError)(cancelation, context)
