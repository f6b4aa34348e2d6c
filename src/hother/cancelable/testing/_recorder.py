"""Record what operations do, and tell the story when it is not the expected one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias, final

from anyio.lowlevel import current_token

from .._core._lifecycle import OperationStatus
from .._core._observers import Progress, Transition, add_observer
from .._core._reasons import Cancelation, CancelationReason
from .._core._wakeup import thread_safe_clock
from .._scope import Cancelable

if TYPE_CHECKING:
    from typing_extensions import Self

Which: TypeAlias = "Cancelable | str"


class _Timer:
    """When one operation was cancelled, and when it ended, on the clock of its loop."""

    __slots__ = ("cancelled_at", "clock", "ended_at", "forget")

    def __init__(self, event: Transition) -> None:
        self.clock = thread_safe_clock(current_token())
        self.cancelled_at: float | None = None
        self.ended_at: float | None = None
        self.forget = event.token.add_callback(self._cancelled)

    def _cancelled(self, _: Cancelation) -> None:
        self.cancelled_at = self.clock()

    def end(self) -> None:
        self.ended_at = self.clock()
        self.forget()


@final
class Recorder:
    """Records the transitions and the progress of operations.

    As a context manager it watches all operations of the process; to watch only some, hand it to them
    (``Cancelable(observers=[recorder])``)::

        with Recorder() as recorder:
            await handle(request)
        recorder.assert_cancelled("report", CancelationReason.TIMEOUT)

    Its methods take an operation, or its name or id; without one they mean the only one that there is.
    What they assert they check once, now. If it does not hold, the message tells what happened instead,
    in order.
    """

    def __init__(self) -> None:
        self.events: list[Transition | Progress] = []  #: everything, in order
        self._timers: dict[str, _Timer] = {}
        self._remove: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        if self._remove is None:
            self._remove = add_observer(self)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._remove is not None:
            self._remove()
            self._remove = None
        for timer in self._timers.values():
            timer.forget()

    def __str__(self) -> str:
        return _story(self.events)

    # --- An `Observer`

    def on_transition(self, event: Transition) -> None:
        """Record a transition."""
        self.events.append(event)
        identity = event.context.id
        if event.previous is OperationStatus.PENDING:
            self._timers[identity] = _Timer(event)
        elif event.context.status.is_final and identity in self._timers:
            self._timers[identity].end()

    def on_progress(self, event: Progress) -> None:
        """Record progress."""
        self.events.append(event)

    # --- What happened

    def of(self, which: Which | None = None) -> list[Transition | Progress]:
        """Return the events of the operations that *which* names, in order."""
        return [event for event in self.events if _is_meant(event, which)]

    def statuses(self, which: Which | None = None) -> list[OperationStatus]:
        """Return the statuses that an operation went through, from entering its block on."""
        return [event.context.status for event in self._of_one(which) if isinstance(event, Transition)]

    def progress(self, which: Which | None = None) -> list[Any]:
        """Return the messages that operations reported, in order."""
        return [event.message for event in self.of(which) if isinstance(event, Progress)]

    def cancelation(self, which: Which | None = None) -> Cancelation | None:
        """Return why an operation was cancelled, if it was."""
        events = self._of_one(which)
        return events[-1].context.cancelation if events else None

    def latency(self, which: Which | None = None) -> float | None:
        """Return how long an operation took to end once it was cancelled, in seconds of its loop's clock.

        ``None`` if it was not cancelled, or has not ended; and for its own deadline: when that passes,
        the block is interrupted at once, but nobody else hears of it before the block is left.
        """
        events = self._of_one(which)
        timer = self._timers.get(events[0].context.id) if events else None
        if timer is None or timer.cancelled_at is None or timer.ended_at is None:
            return None
        cancelation = events[-1].context.cancelation
        if cancelation is not None and cancelation.reason is CancelationReason.TIMEOUT:
            return None
        return timer.ended_at - timer.cancelled_at

    @property
    def open(self) -> list[str]:
        """The names (or ids) of the operations whose block was entered and not left."""
        last = {event.context.id: event.context for event in self.events}
        return [context.name or context.id for context in last.values() if not context.status.is_final]

    # --- What should have happened

    def assert_statuses(self, statuses: Iterable[str], which: Which | None = None) -> None:
        """Check what statuses an operation went through: ``["running", "cancelled"]``.

        Raises:
            AssertionError: If it did not.
        """
        expected = [OperationStatus(status) for status in statuses]
        self._expect(self.statuses(which) == expected, which, f"to go through {', '.join(expected)}")

    def assert_completed(self, which: Which | None = None) -> None:
        """Check that an operation ran to its end.

        Raises:
            AssertionError: If it did not.
        """
        self._expect(self._last(which) is OperationStatus.COMPLETED, which, "to be completed")

    def assert_failed(self, which: Which | None = None) -> None:
        """Check that an operation raised an error.

        Raises:
            AssertionError: If it did not.
        """
        self._expect(self._last(which) is OperationStatus.FAILED, which, "to fail")

    def assert_cancelled(
        self,
        which: Which | None = None,
        reason: CancelationReason | None = None,
        *,
        within: float | None = None,
    ) -> None:
        """Check that an operation was cancelled, and ended for that.

        Args:
            which: The operation, or its name or id.
            reason: For what reason.
            within: How many seconds of its loop's clock it may have taken to end: see `latency`.

        Raises:
            AssertionError: If it was not, or took longer.
        """
        cancelation, latency = self.cancelation(which), self.latency(which)
        holds = self._last(which) is OperationStatus.CANCELLED
        expected = "to be cancelled"
        if reason is not None:
            holds &= cancelation is not None and cancelation.reason is reason
            expected += f" for the reason {reason.value!r}"
        if within is not None:
            holds &= latency is None or latency <= within
            expected += f", and to end within {within:g} seconds of that"
            if latency is not None:
                expected += f" (it took {latency:g})"
        self._expect(holds, which, expected)

    def assert_progress(self, messages: Iterable[Any], which: Which | None = None) -> None:
        """Check what an operation reported, in order and without anything between.

        Raises:
            AssertionError: If it reported something else.
        """
        expected = list(messages)
        self._expect(self.progress(which) == expected, which, f"to report {expected!r}")

    def assert_nothing_open(self) -> None:
        """Check that all operations have ended.

        Raises:
            AssertionError: If some have not.
        """
        if self.open:
            raise AssertionError(f"expected all operations to have ended; open: {self.open}.\n{self}")

    def _last(self, which: Which | None) -> OperationStatus | None:
        return next(reversed(self.statuses(which)), None)

    def _of_one(self, which: Which | None) -> list[Transition | Progress]:
        events = self.of(which)
        operations = {event.context.id: event.context.name for event in events}
        if len(operations) > 1:
            listed = ", ".join(f"{identity} ({name})" for identity, name in operations.items())
            raise AssertionError(f"{_name(which)} is not one operation, but {len(operations)}: {listed}")
        return events

    def _expect(self, holds: bool, which: Which | None, expected: str) -> None:
        if not holds:
            events = self.of(which) or self.events
            raise AssertionError(f"expected {_name(which)} {expected}; got, in order:\n{_story(events)}")


def _is_meant(event: Transition | Progress, which: Which | None) -> bool:
    if isinstance(which, Cancelable):
        return event.context.id == which.id
    return which is None or which in {event.context.name, event.context.id}


def _name(which: Which | None) -> str:
    return "the operation" if which is None else repr(which)


def _story(events: list[Transition | Progress]) -> str:
    if not events:
        return "  (nothing)"
    return "\n".join(f"  {event.at - events[0].at:9.3f} s  {_line(event)}" for event in events)


def _line(event: Transition | Progress) -> str:
    context = event.context
    name = context.name or context.id
    if isinstance(event, Progress):
        return f"{name}: {event.message!r} {dict(event.metadata) or ''}".rstrip()
    line = f"{name}: {event.previous} -> {context.status}"
    if context.status is OperationStatus.CANCELLED and context.cancelation is not None:
        line += f" ({context.cancelation.reason}: {context.cancelation})"
    return f"{line} ({context.error})" if context.error else line
