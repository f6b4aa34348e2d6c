"""A registry against a model: any sequence of entering, shielding, cancelling, leaving and forgetting."""

from __future__ import annotations

import weakref
from collections import Counter
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hother.cancelable import (
    Cancelable,
    CancelationReason,
    CancelationToken,
    OperationContext,
    OperationRegistry,
    OperationStatus,
    Transition,
)

PENDING, RUNNING, SHIELDED = OperationStatus.PENDING, OperationStatus.RUNNING, OperationStatus.SHIELDED
IDS = st.sampled_from("abc")  # few: they shall repeat
NAMES = st.sampled_from([None, "report", "report 2", "mail"])
ENDS = st.sampled_from([status for status in OperationStatus if status.is_final])
HISTORY = 5


@dataclass(eq=False)
class Running:
    """What the model knows of an operation that runs."""

    event: Transition
    operation: Cancelable | None  #: None if the events are made by hand

    @property
    def context(self) -> OperationContext:
        return self.event.context


class Registry(RuleBasedStateMachine):
    """Does the same to a registry and to its model, and compares."""

    def __init__(self) -> None:
        super().__init__()
        self.registry = OperationRegistry(history=HISTORY)
        self.running: list[Running] = []
        self.ended: list[OperationContext] = []
        self.started = 0

    def pick(self, data: st.DataObject) -> Running:
        # A number is drawn rather than the thing itself: what hypothesis has printed, it keeps alive.
        return self.running[data.draw(st.integers(0, len(self.running) - 1))]

    def tell(self, picked: Running, status: OperationStatus, **values: Any) -> None:
        context = replace(picked.context, status=status, **values)
        picked.event = replace(picked.event, context=context, previous=picked.context.status)
        if picked.operation is not None:
            picked.operation._status = status
        for _ in range(2):  # by being its observer twice
            self.registry.on_transition(picked.event)

    @rule(operation_id=IDS, name=NAMES, user=st.integers(0, 1))
    def enter_by_hand(self, operation_id: str, name: str | None, user: int) -> None:
        """Start something that makes its events itself."""
        self.started += 1
        context = OperationContext(
            operation_id, name, PENDING, None, None, None, self.started, 0.0, {"user": user}
        )
        self.enter(Running(Transition(context, PENDING, CancelationToken()), None))

    @rule(operation_id=IDS, name=NAMES, user=st.integers(0, 1))
    def enter_operation(self, operation_id: str, name: str | None, user: int) -> None:
        """Start an operation."""
        self.started += 1
        operation = Cancelable(operation_id=operation_id, name=name, metadata={"user": user})
        operation._block = _Block(self.started)  # type: ignore[assignment]
        event = Transition(operation.context, PENDING, operation.token, _operation=weakref.ref(operation))
        self.enter(Running(event, operation))

    def enter(self, entered: Running) -> None:
        self.running.append(entered)
        self.tell(entered, RUNNING)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def shield(self, data: st.DataObject) -> None:
        """Enter a shielded section, or leave it."""
        picked = self.pick(data)
        self.tell(picked, RUNNING if picked.context.status is SHIELDED else SHIELDED)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), status=ENDS)
    def end(self, data: st.DataObject, status: OperationStatus) -> None:
        """Leave the block."""
        picked = self.pick(data)
        self.running.remove(picked)
        self.tell(picked, status, cancelation=picked.event.token.cancelation)
        self.ended.append(picked.context)

    @precondition(lambda self: any(running.operation for running in self.running))
    @rule(data=st.data())
    def throw_away(self, data: st.DataObject) -> None:
        """Forget an operation in the middle of its block."""
        picked = self.pick(data)
        if picked.operation is not None:
            self.running.remove(picked)
            picked.operation = None

    @rule(operation_id=IDS)
    def cancel_by_id(self, operation_id: str) -> None:
        """Cancel the operation with an id, if it is the only one."""
        meant = [running for running in self.running if running.context.id == operation_id]
        try:
            cancelled = self.registry.cancel(operation_id)
        except LookupError:
            assert len(meant) > 1
        else:
            assert len(meant) <= 1
            assert cancelled is any(running not in self.cancelled for running in meant)
            self.cancelled.extend(meant)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def cancel_by_snapshot(self, data: st.DataObject) -> None:
        """Cancel one that runs."""
        picked = self.pick(data)
        assert self.registry.cancel(picked.context) is (picked not in self.cancelled)
        self.cancelled.append(picked)

    @precondition(lambda self: self.ended)
    @rule(data=st.data())
    def cancel_by_old_snapshot(self, data: st.DataObject) -> None:
        """Cancel one that has ended, whose id may be that of another by now."""
        assert not self.registry.cancel(data.draw(st.sampled_from(self.ended)))

    @rule(name=NAMES, glob=st.sampled_from([None, "rep*", "*"]), user=st.sampled_from([None, 0, 1]))
    def cancel_some(self, name: str | None, glob: str | None, user: int | None) -> None:
        """Cancel those that are meant."""
        wanted: dict[str, Any] = {"name": name, "name_glob": glob}
        wanted["metadata"] = None if user is None else {"user": user}
        meant = [
            running
            for running in self.running
            if name in {None, running.context.name}
            and (glob is None or (fnmatchcase(running.context.name or "", glob) and running.context.name))
            and user in {None, running.context.metadata["user"]}
        ]
        assert [context.id for context in self.registry.list(**wanted)] == [r.context.id for r in meant]
        number = self.registry.cancel_all(CancelationReason.SHUTDOWN, **wanted)
        assert number == len([running for running in meant if running not in self.cancelled])
        self.cancelled.extend(meant)

    @property
    def cancelled(self) -> list[Running]:
        return self.__dict__.setdefault("_cancelled", [])  # type: ignore[no-any-return]

    @invariant()
    def it_lists_what_runs(self) -> None:
        """Compare what runs, in order."""
        assert len(self.registry) == len(self.running)
        shown = [(c.id, c.name, c.status, c.started_at, c.cancelation) for c in self.registry.list()]
        assert shown == [
            (c.id, c.name, c.status, c.started_at, running.event.token.cancelation)
            for running in self.running
            for c in [running.context]
        ]

    @invariant()
    def it_finds_what_runs(self) -> None:
        """Compare by id: the latest."""
        for operation_id in "abc":
            meant = [r.context.started_at for r in self.running if r.context.id == operation_id]
            found = self.registry.get(operation_id)
            assert (operation_id in self.registry) is bool(meant)
            assert (found.started_at if found else None) == (meant[-1] if meant else None)

    @invariant()
    def it_cancelled_those_that_were_meant(self) -> None:
        """Look at the tokens."""
        for running in self.running:
            assert running.event.token.is_cancelled is (running in self.cancelled)

    @invariant()
    def it_remembers_how_the_latest_ended(self) -> None:
        """Compare history and counts."""
        assert self.registry.history() == self.ended[-HISTORY:]
        statistics = self.registry.statistics()
        assert statistics.ended == len(self.ended)
        counted = Counter(context.status for context in self.ended)
        assert {s: n for s, n in statistics.by_status.items() if n} == counted


class _Block:
    """As much of a block as a snapshot looks at."""

    is_closed = True
    loop = type("Loop", (), {"native_token": None})()

    def __init__(self, started_at: float) -> None:
        self.started_at = started_at

    def elapsed(self) -> float:
        return 0.0

    def notice_deadline(self) -> None:
        pass

    def enclosing_owners(self) -> Any:
        return iter(())


Registry.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestRegistry = Registry.TestCase
