"""The life of an operation as a table. It does nothing but say which step may follow which."""

from __future__ import annotations

from enum import Enum
from typing import NoReturn

from ._errors import LifecycleError
from ._public import public


@public
class OperationStatus(str, Enum):
    """Where an operation stands."""

    PENDING = "pending"  #: made, its block not entered yet
    RUNNING = "running"  #: inside its block
    SHIELDED = "shielded"  #: inside its block, in a section that cancelation must not interrupt
    COMPLETED = "completed"  #: its block ran to the end
    CANCELLED = "cancelled"  #: its block was cut short, by its own cancelation or by one from outside
    FAILED = "failed"  #: its block raised an error

    __str__ = str.__str__
    __format__ = str.__format__  # type: ignore[assignment]  # what Enum's comes to, after a while
    __hash__ = str.__hash__  # that of Enum is slow, and not that of the string, which is equal

    @property
    def is_final(self) -> bool:
        """Whether nothing can follow."""
        return not TRANSITIONS[self]


# What each operation becomes. To find a member of an Enum takes a while below Python 3.12.
PENDING = OperationStatus.PENDING
RUNNING = OperationStatus.RUNNING
COMPLETED = OperationStatus.COMPLETED
CANCELLED = OperationStatus.CANCELLED

_ENDS = frozenset({OperationStatus.COMPLETED, OperationStatus.CANCELLED, OperationStatus.FAILED})

TRANSITIONS: dict[OperationStatus, frozenset[OperationStatus]] = {
    OperationStatus.PENDING: frozenset({OperationStatus.RUNNING}),
    OperationStatus.RUNNING: _ENDS | {OperationStatus.SHIELDED},
    OperationStatus.SHIELDED: _ENDS | {OperationStatus.RUNNING},
    OperationStatus.COMPLETED: frozenset(),
    OperationStatus.CANCELLED: frozenset(),
    OperationStatus.FAILED: frozenset(),
}


def refuse_transition(old: OperationStatus, new: OperationStatus) -> NoReturn:
    """Refuse a step that the table does not allow.

    Raises:
        LifecycleError: Always; it names both.
    """
    allowed = ", ".join(sorted(TRANSITIONS[old])) or "nothing"
    raise LifecycleError(f"an operation that is {old} cannot become {new}; {allowed} may follow")
