"""The operations that run now, to be found by their id.

There are no locks, for the reasons that the token gives; each step is one that dicts do atomically:

1. An operation is here while its entry is in `_entries`. Whoever pops it from there takes it out of the
   rest, too, and nobody else does.
2. Ids that users give may repeat. The first operation with an id is in `_by_id`, where only that one takes
   it away again; those that came while it was there are in `_doubles`, where they are looked for one
   by one. With ids that do not repeat, nothing ever is.
3. Copies are made of values or keys, never of items: those would be new tuples, the garbage collector
   could come in between, and with it a finalizer that changes the dict.

An entry knows its operation by a weak reference, which takes the entry away with the operation: one that
is thrown away in the middle of its block never tells how it ended. So an entry must not hold the
operation's token either: that of a parent holds what its children registered there. If an event loop is
closed in the middle of a block, AnyIO keeps the block's task; such an entry is taken away when it is seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from operator import attrgetter
from time import monotonic
from typing import Any, final

from .._core._observers import Progress, Transition
from .._core._operation import OperationContext
from .._core._reasons import CancelationReason
from .._core._wakeup import has_ended
from ._filter import Described, Filter


@final
@dataclass(eq=False, slots=True)
class Entry:
    """One operation that runs."""

    number: int  #: the how manieth that came
    token_id: int  #: what the operation's token has for an ``id()``
    context: OperationContext  #: from the latest of its events
    operation: weakref.ref[Any] | None
    by_hand: Transition | Progress | None  #: the latest event, if there is no operation behind it

    @property
    def runs(self) -> bool:
        """Whether the operation is there, and has not ended and is just about to tell."""
        described = self.described()
        return described is not None and not described.status.is_final

    def described(self) -> Described | None:
        """Return what may be looked at without making a snapshot, or ``None`` if it was thrown away."""
        return self.context if self.operation is None else self.operation()

    def snapshot(self) -> OperationContext | None:
        """Return the operation as it is now, or ``None`` if it has ended or was thrown away."""
        if self.by_hand is not None:
            return _updated(self.by_hand)
        operation = self._operation()
        context: OperationContext | None = None if operation is None else operation.context
        return None if context is None or context.status.is_final else context

    def cancel(self, reason: CancelationReason, message: str | None, by: str | None) -> bool:
        """Cancel the operation. Returns whether this was the first time."""
        target = self._operation() if self.by_hand is None else self.by_hand.token
        return target is not None and self.runs and target.cancel(reason, message, by=by)

    def _operation(self) -> Any:
        return None if self.operation is None else self.operation()


@final
class LiveOperations:
    """The entries of all operations that run."""

    __slots__ = ("_by_id", "_doubles", "_entries", "_numbers")

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}  # by the id() of the operation's token
        self._by_id: dict[str, Entry] = {}
        self._doubles: dict[Entry, None] = {}
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._entries)

    def hear(self, event: Transition | Progress) -> bool:
        """Take in an operation, or its latest event. Returns false if this is no news."""
        entry = self._entries.get(id(event.token))
        if entry is None:
            self._add(event)
            return True
        is_news = entry.context is not event.context
        entry.context = event.context
        if entry.by_hand is not None:
            entry.by_hand = event
        return is_news

    def remove(self, token_id: int) -> bool:
        """Take an operation out. Returns whether it was there."""
        entry = self._entries.pop(token_id, None)
        if entry is None:
            return False
        if self._by_id.get(entry.context.id) is entry:
            del self._by_id[entry.context.id]
        else:
            self._doubles.pop(entry, None)
        return True

    def clear(self) -> None:
        """Take all operations out."""
        for token_id in list(self._entries):
            self.remove(token_id)

    def named(self, operation_id: str) -> list[Entry]:
        """Return the operations with this id, in the order in which they came."""
        first = self._by_id.get(operation_id)
        entries = [] if first is None else [first]
        if self._doubles:
            entries += [entry for entry in list(self._doubles) if entry.context.id == operation_id]
            entries.sort(key=attrgetter("number"))  # one that came later may have become the first
        return [entry for entry in self._without_lost(entries) if entry.runs]

    def matching(self, wanted: Filter) -> Iterator[tuple[Entry, OperationContext]]:
        """Go through the operations that are meant, in the order in which they came, with snapshots."""
        entries = list(self._entries.values()) if wanted.id is None else self.named(wanted.id)
        for entry in self._without_lost(entries):
            described = entry.described()
            if described is not None and wanted.may_match(described):
                context = entry.snapshot()
                if context is not None and wanted.matches(context):
                    yield entry, context

    def _without_lost(self, entries: list[Entry]) -> Iterator[Entry]:
        for entry in entries:
            # Held until the entry is gone: with its token, nobody else has the token's id().
            operation = None if entry.operation is None else entry.operation()
            if operation is not None and has_ended(operation._block.loop):
                self.remove(entry.token_id)
            else:
                yield entry

    def _add(self, event: Transition | Progress) -> None:
        token_id = id(event.token)
        if event._operation is None:
            entry = Entry(next(self._numbers), token_id, event.context, None, by_hand=event)
        else:
            operation = event._operation()
            if operation is None:
                return  # the event was kept, and is told late
            # This is called while the token still lives, so that nobody else has its id().
            reference = weakref.ref(operation, lambda _: self.remove(token_id))
            entry = Entry(next(self._numbers), token_id, event.context, reference, by_hand=None)
        self._entries[token_id] = entry
        if self._by_id.setdefault(event.context.id, entry) is not entry:
            self._doubles[entry] = None


def _updated(event: Transition | Progress) -> OperationContext:
    context = event.context
    duration = None if context.duration is None else context.duration + monotonic() - event.at
    return replace(context, duration=duration, cancelation=event.token.cancelation)
