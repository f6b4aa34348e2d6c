"""Why something was cancelled: a closed list of reasons, and the record of one cancelation."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import Enum
from time import time

from ._public import public


@public
class CancelationReason(str, Enum):
    """What kind of event asked for a cancelation."""

    TIMEOUT = "timeout"  #: a deadline passed
    MANUAL = "manual"  #: somebody called ``cancel()``
    SIGNAL = "signal"  #: the process received a signal
    CONDITION = "condition"  #: a watched condition came true
    PARENT = "parent"  #: the operation it belongs to was cancelled
    DISCONNECT = "disconnect"  #: the client went away before its response was complete
    SHUTDOWN = "shutdown"  #: the server is shutting down
    ERROR = "error"  #: a failure elsewhere made the work pointless
    EXTERNAL = "external"  #: a scope or a task around the operation was cancelled, not by this library

    __str__ = str.__str__
    __format__ = str.__format__  # type: ignore[assignment]  # what Enum's comes to, after a while
    __hash__ = str.__hash__  # that of Enum is slow, and not that of the string, which is equal


@public
@dataclass(frozen=True, slots=True, init=False)
class Cancelation:
    """The record of one cancelation. Two records are equal if they say the same, whenever they were made."""

    reason: CancelationReason
    message: str | None = None  #: for humans
    by: str | None = None  #: who asked: the name of a user, an operation, a source
    cause: Cancelation | None = None  #: the cancelation that this one follows from
    at: float = field(
        default_factory=time, compare=False, repr=False
    )  #: when, in seconds since the epoch; now, unless it is given

    def __init__(
        self,
        reason: CancelationReason,
        message: str | None = None,
        by: str | None = None,
        cause: Cancelation | None = None,
        at: float | None = None,
    ) -> None:
        # The one that `dataclass` would make looks each field up by its name, to write what is frozen; and to
        # make a record was a third of what it took to cancel a token.
        _set_reason(self, reason)
        _set_message(self, message)
        _set_by(self, by)
        _set_cause(self, cause)
        _set_at(self, time() if at is None else at)

    @property
    def text(self) -> str:
        """The message, or a sentence about the reason if there is none."""
        return self.message or _DEFAULT_MESSAGES[self.reason]

    @property
    def root(self) -> Cancelation:
        """The cancelation that all of it began with: the cause of the cause, and so on; or this one."""
        root = self
        while root.cause is not None:
            root = root.cause
        return root

    def __str__(self) -> str:
        return f"{self.text} (by {self.by})" if self.by else self.text


# In the order of the fields.
_set_reason, _set_message, _set_by, _set_cause, _set_at = (
    getattr(Cancelation, it.name).__set__ for it in fields(Cancelation)
)

_DEFAULT_MESSAGES = {
    CancelationReason.TIMEOUT: "the deadline passed",
    CancelationReason.MANUAL: "cancelled on request",
    CancelationReason.SIGNAL: "a signal arrived",
    CancelationReason.CONDITION: "the condition came true",
    CancelationReason.PARENT: "the parent operation was cancelled",
    CancelationReason.DISCONNECT: "the client disconnected",
    CancelationReason.SHUTDOWN: "the server is shutting down",
    CancelationReason.ERROR: "an error made the work pointless",
    CancelationReason.EXTERNAL: "an enclosing scope or task was cancelled",
}
