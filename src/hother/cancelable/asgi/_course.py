"""The course of a request in which something happens: what its policy makes of that, and when.

Most requests are over before anything happens, and never have a `Course`. It is made when the request's
time limit must be kept, when its client leaves, when the server begins to stop, or when the application
asks for something; and it decides. What is decided, the `Exchange` does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from math import inf
from typing import TYPE_CHECKING

import anyio

from .._core._errors import error_for
from .._core._reasons import Cancelation, CancelationReason
from .._core._report import report
from ._access_log import log_cancelled
from ._agenda import Agenda
from ._impatience import say_that_it_was_cancelled
from ._loops import Pending
from ._policy import (
    DEFAULT_GRACE,
    DEFAULTS,
    Grace,
    OnDisconnect,
    RequestPolicy,
    is_routed,
    policy_of,
    shortest_timeout,
)
from ._response import Phase
from ._types import Scope

if TYPE_CHECKING:
    from ._exchange import Exchange

CLEAN_UP_BUDGET = 10.0
"""How long one clean-up task of a request that was cut may take, in seconds."""

SOONEST = 0.001
"""How long after a look that finds no endpoint the next one is, in seconds, even if a timeout is 0."""


class Course:
    """What has happened to a request, and what will."""

    # What few have is here, on the class.
    _agenda: Agenda | None = None
    _applied: RequestPolicy | None = None  # to this request, by itself
    _noticed_at: float | None = None  # when the first thing happened
    _left_at: float | None = None  # when the application ended, if something had happened
    _answered: Cancelation | None = None  # a cancelation that was answered for
    _scope: Scope | None = None  # that was routed, if it is an inner middleware's
    _has_outcome = False  # whether an inner middleware has answered
    _was_cut = False  # whether the client has left in the middle of its response
    _clean_ups: list[Callable[[], Awaitable[None]]] | None = None
    _alarm: Pending | None = None  # the timer that tells when it is time to look ...
    _alarm_at = inf  # ... and when that is

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._look_at = inf  # when to look whether the time is up

    # --- The policy

    @property
    def policy(self) -> RequestPolicy:
        """All that has been stated about this request, the innermost statements first."""
        innermost = _innermost(self._exchange)
        stated = policy_of(innermost._scope) or RequestPolicy()
        if innermost.course._applied is not None:
            stated = innermost.course._applied.over(stated)
        for exchange in _outwards(innermost):
            stated = stated.over(exchange._options.policy_for(exchange._scope["type"]))
        return stated.over(DEFAULTS)

    def apply(self, policy: RequestPolicy) -> None:
        """Have *policy* hold for this request, whatever was stated before."""
        innermost = _innermost(self._exchange)
        innermost.course._applied = policy.over(innermost.course._applied)
        for exchange in _outwards(innermost):
            exchange.course._look_again()

    def _reaction_to(self, event: Cancelation) -> OnDisconnect | None:
        if event.reason is CancelationReason.DISCONNECT:
            return self.policy.on_disconnect
        if event.reason is CancelationReason.SHUTDOWN:
            return self.policy.on_shutdown
        return "cancel"

    @property
    def ends_with_its_client(self) -> bool:
        """Whether the application is stopped at once when its client leaves."""
        return not self.is_committed and self.policy.on_disconnect == "cancel"

    # --- The time limit, and what else is due

    def start(self) -> None:
        """Begin to keep the time. A request that takes no time need not ask for its policy."""
        limits = (self._exchange._options.policy_for(self._exchange._scope["type"]).limit, shortest_timeout())
        self._look_at = self._exchange.began + min(inf if limit is None else limit for limit in limits)
        if self._applied is not None:
            self._look_at = -inf
        self._set_alarm()

    def _set_alarm(self) -> None:
        """Have the loop call when it is time to look."""
        next_look = self._look_at if self._agenda is None else min(self._look_at, self._agenda.next_due)
        if next_look == self._alarm_at or self._exchange._has_ended:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = next_look
        self._alarm = None if next_look == inf else self._exchange.call_at(next_look, self.look)

    def look(self) -> None:
        """Do what is due."""
        self._alarm, self._alarm_at = None, inf
        now = self._exchange.now()
        if now >= self._look_at:
            self._look_at = self._look_at_time(now)
        if self._agenda is not None:
            for item in self._agenda.take_due(now):
                item.action(item.event)
        self._set_alarm()

    def _look_at_time(self, now: float) -> float:
        """End the request if its time is up. Returns when to look again."""
        limit = self.policy.limit
        end = inf if limit is None else self._exchange.began + limit
        if limit is not None and now >= end:
            if self._agenda is not None and self.is_committed and not self._is_over():
                self.notice()
                return self._agenda.committed_until  # the limit may be another one then
            self._exchange._time_out(limit)
            return inf
        if shortest_timeout() == inf or is_routed(_innermost(self._exchange)._scope):
            return end
        # The route, once it is known, may have a shorter limit. Twice as late each time: few looks do.
        return min(end, now + max(shortest_timeout(), now - self._exchange.began, SOONEST))

    def _look_again(self) -> None:
        self._look_at = -inf
        self._set_alarm()

    def _later(self, when: float, action: Callable[[Cancelation], None], event: Cancelation) -> None:
        self._use_agenda().add(when, action, event)
        self._set_alarm()

    def _use_agenda(self) -> Agenda:
        if self._agenda is None:
            self._agenda = Agenda()
        return self._agenda

    # --- Events

    def react(self, event: Cancelation) -> None:
        """Do what the policy says about an event: now, later, or not at all."""
        if self._is_over():
            return
        self.notice()
        if event is self._exchange._departure:
            self._was_cut = self._exchange.phase is Phase.STARTED
        if self._agenda is not None and self.is_committed:
            self._later(self._agenda.committed_until, self.react, event)
            return
        reaction = self._reaction_to(event)
        if isinstance(reaction, Grace):
            self._later(self._exchange.now() + reaction.delay, self._warn, event)
        elif reaction != "finish":
            self._exchange._cancel(event)
            if reaction == "cancel":
                self._exchange._end_application(event)

    def react_late(self, event: Cancelation) -> None:
        """React to a shutdown that is older than the request, which has all the time that others get."""
        self._later(self._exchange.now(), self._decide_late, event)  # when it is routed, as a rule

    def _decide_late(self, event: Cancelation) -> None:
        on_shutdown = self.policy.on_shutdown
        if on_shutdown == "cancel":
            self.react(event)
        else:  # a policy that becomes known meanwhile counts, too
            grace = on_shutdown if isinstance(on_shutdown, Grace) else DEFAULT_GRACE
            self._later(self._exchange.began + grace.total, self.react, event)

    def _warn(self, event: Cancelation) -> None:
        reaction = self._reaction_to(event)
        if not isinstance(reaction, Grace):  # any more: the policy has changed, or become known
            self.react(event)
        elif not self._is_over():
            self._exchange._cancel(event)
            if event is self._exchange._departure:
                self._exchange.tell_of_departure()
            self._later(self._exchange.now() + reaction.seconds, self._end, event)

    def _end(self, event: Cancelation) -> None:
        if not self._is_over() and self._reaction_to(event) not in {"ignore", "finish"}:
            self._exchange._end_application(event)

    def _is_over(self) -> bool:
        return self._exchange._has_ended or self._exchange.phase is Phase.COMPLETE

    # --- Commitments

    @property
    def is_committed(self) -> bool:
        """Whether nothing may end the request right now."""
        return self._agenda is not None and self._exchange.now() < self._agenda.committed_until

    def commit(self, timeout: float) -> None:
        """Put off for so many seconds what may end the request.

        Raises:
            CancelationError: If the application was stopped before.
        """
        exchanges = tuple(_outwards(_innermost(self._exchange)))
        for exchange in exchanges:
            if (cause := exchange._cause or _given_up(exchange)) is not None:
                raise error_for(cause)
        until = self._exchange.now() + timeout
        for exchange in exchanges:
            agenda = exchange.course._use_agenda()
            agenda.committed_until = max(agenda.committed_until, until)
            if exchange._work.deadline != inf:  # of a WebSocket handler that its client's leaving is to end
                exchange._work.deadline = max(exchange._work.deadline, until)

    # --- The end

    def notice(self) -> None:
        """Take note that something has happened."""
        if self._noticed_at is None:
            self._noticed_at = self._exchange.now()

    def note(self, cancelation: Cancelation) -> None:
        """Take note of a cancelation that was answered for: by us, or by the application in its own way."""
        self.notice()
        self._answered = cancelation

    def application_ended(self) -> None:
        """Take note that the application has ended, whichever way."""
        if self._noticed_at is not None:
            self._left_at = self._exchange.now()
            # Who closes a coroutine may do so when its event loop is gone, and AnyIO knows no class any more.
            if not self._exchange._is_closed and self._was_cancelled_from_outside() and self._was_to_go_on():
                say_that_it_was_cancelled()

    def _was_cancelled_from_outside(self) -> bool:
        return isinstance(self._exchange._error, anyio.get_cancelled_exc_class())

    def _was_to_go_on(self) -> bool:
        exchange = self._exchange
        has_policy = exchange._is_gone or self.is_committed
        return has_policy and exchange._cause is None and not exchange._work.cancel_called

    def end(self) -> None:
        """Take note that nothing can happen any more."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._log()

    def _log(self) -> None:
        """Write the line of a request that was cancelled, or have the outer middleware write it."""
        exchange = self._exchange
        cancelation = exchange._cause or self._answered or exchange._token.cancelation or exchange._departure
        if cancelation is None or self._noticed_at is None or self._is_goodbye(cancelation):
            return
        if exchange._outer is not None:
            exchange._outer.course._inherit(self, cancelation, self._noticed_at)
            return
        left_at = exchange.now() if self._left_at is None else self._left_at
        log_cancelled(
            self._scope or exchange._scope,
            exchange,
            cancelation,
            latency=left_at - self._noticed_at,
            is_gone=exchange._is_gone,
            was_cut=self._was_cut and exchange._is_http,
            has_outcome=self._has_outcome or exchange.has_outcome,
        )

    def _inherit(self, inner: Course, cancelation: Cancelation, noticed_at: float) -> None:
        """Take over what the course of an inner middleware has to tell: one request has one line."""
        self.note(cancelation)
        # Whichever was first: the inner course may have heard of it when a commitment was over.
        self._noticed_at = min(noticed_at, noticed_at if self._noticed_at is None else self._noticed_at)
        self._scope = inner._scope or inner._exchange._scope
        self._has_outcome = inner._has_outcome or inner._exchange.has_outcome

    def _is_goodbye(self, cancelation: Cancelation) -> bool:
        """Whether a WebSocket has just been closed by its client, and its handler ended by itself."""
        exchange = self._exchange
        return (
            not exchange._is_http
            and cancelation is exchange._departure
            and exchange._cause is None
            and not exchange._work.cancel_called
        )

    def clean_up_with(self, task: Callable[[], Awaitable[None]]) -> None:
        """Have *task* run when the request is over."""
        if self._clean_ups is None:
            self._clean_ups = []
        self._clean_ups.append(task)

    @property
    def has_clean_ups(self) -> bool:
        """Whether there are clean-up tasks."""
        return self._clean_ups is not None

    async def clean_up(self) -> None:
        """Run the clean-up tasks, whatever is cancelled, one after the other."""
        interruption: BaseException | None = None
        for task in self._clean_ups or ():
            try:
                with anyio.move_on_after(CLEAN_UP_BUDGET, shield=True):
                    await _reporting(task)
            except anyio.get_cancelled_exc_class() as error:  # a native one: it is not meant for the others
                interruption = error
        if interruption is not None:
            try:
                raise interruption
            finally:
                del interruption


async def _reporting(task: Callable[[], Awaitable[None]]) -> None:
    try:
        await task()
    except Exception as error:  # there is no application any more that it could be raised in
        report([error])


def _given_up(exchange: Exchange) -> Cancelation | None:
    """Return why the application was interrupted that had been left to end by itself."""
    return exchange._token.cancelation if exchange._work.cancel_called else None


def _innermost(exchange: Exchange) -> Exchange:
    while exchange._inner is not None:
        exchange = exchange._inner
    return exchange


def _outwards(exchange: Exchange) -> Iterator[Exchange]:
    outer: Exchange | None = exchange
    while outer is not None:
        yield outer
        outer = outer._outer
