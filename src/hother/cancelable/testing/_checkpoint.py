"""One place where swept code waited."""

from __future__ import annotations

from dataclasses import dataclass
from traceback import StackSummary
from typing import Literal, TypeAlias, final

Interruption: TypeAlias = Literal["scope", "operation", "native", "error"]
"""How to interrupt: a scope around the code, an operation around it, its asyncio task, or an error."""


@final
@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One place where swept code waited, and was interrupted."""

    number: int  #: counted from 1, among all waits of the function and of the tasks that it started
    how: Interruption | None  #: what interrupted it; ``None`` for a way of your own
    stack: StackSummary  #: where the task that waited stood
    in_child: bool  #: whether that was a task that the function had started

    def __str__(self) -> str:
        who = "a task that it had started" if self.in_child else "it"
        where = "".join(self.stack.format()).rstrip()
        return f"{_DONE[self.how]} at checkpoint {self.number}, as {who} waited here:\n{where}"


_DONE: dict[Interruption | None, str] = {
    "scope": "A scope around it was cancelled",
    "operation": "Its operation was cancelled",
    "native": "Its task was cancelled",
    "error": "An error was raised",
    None: "It was cancelled",
}
