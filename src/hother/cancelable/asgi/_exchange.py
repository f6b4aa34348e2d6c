"""One request or WebSocket, from its first message to its outcome.

The application runs in the task that the server called us in. Its first step is taken by hand: most
requests are over with that, and nothing is made for them but what the application may ask for. Once the
application waits for something, the request is one of the loop's crowd (`_crowd`), which decides when it
is monitored. From then on it has a task that reads, a timer if there is a deadline, and another task once
the client of an application that was stopped and is still busy must be answered.

The scope that stops the application, and those around what is sent, are there when they are needed
(`_late_scope`).

Monitors are tasks of their own (`_loops` tells why). They are waited for before the request ends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable
from contextvars import copy_context
from math import inf
from types import CoroutineType, MethodType, coroutine
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import EventLoopToken

from .._core._errors import cancelation_in, leaves
from .._core._reasons import Cancelation, CancelationReason
from .._core._report import report
from .._core._token import CancelationToken, Listener
from .._core._wakeup import CallSite, call_soon
from ._course import Course
from ._crowd import LONGEST, TURNS, crowd_of
from ._current import Mark, current_mark, set_mark
from ._late_scope import (
    NEVER_OPENED,
    OUTERMOST,
    EagerScope,
    Future,
    OpenScope,
    Place,
    close_work_scope,
    is_here,
    loop_of,
    make_work_scope,
    note_place,
    note_place_in_asyncio,
    put_in_work_scope,
    running_loop,
)
from ._loops import Pending, this_loop
from ._monitors import Monitors
from ._options import Options
from ._outcome import close_message, denial_messages, http_messages, own_farewell
from ._policy import is_routed, policy_of, shortest_timeout
from ._quirks import (
    STARLETTE_COULD_NOT_ANSWER,
    can_change_tasks,
    expects_continue,
    has_body,
    is_in_base_http_middleware,
)
from ._receive import Reader
from ._response import NOBODY, NOT_STARTED, Phase, Response
from ._shutdown import Shutdown
from ._steps import steps_of
from ._types import Message, Receive, Scope, Send

if TYPE_CHECKING:
    from ._middleware import RequestCancelationMiddleware

TOKEN_KEY = "cancelation_token"
"""Where the request's token is in the ASGI scope."""

EXCHANGE_KEY = "cancelation_exchange"
"""Where the request's exchange is in the ASGI scope: for us, not for applications."""

# What tasks that outlive a request are told when they ask for messages, as servers do.
_HTTP_FAREWELL: Message = {"type": "http.disconnect"}
_WEBSOCKET_FAREWELL: Message = {"type": "websocket.disconnect", "code": 1005}


class Exchange(Response, Listener):
    """Runs the application for one request, and ends it when nobody needs it any more."""

    # All that a request has that is over in its first step, and what any has that waits:
    __slots__ = (
        "__weakref__",
        "_course",
        "_has_ended",
        "_middleware",
        "_monitors",
        "_place",
        "_reader",
        "_scope",
        "_server_receive",
        "_token",
        "_work_scope",
    )

    # What few requests need:
    _cause: Cancelation | None = None  # why the application was stopped
    _departure: Cancelation | None = None
    _error: BaseException | None = None
    _inner: Exchange | None = None  # of a middleware further in
    _is_answered_early = False
    _is_gone = False
    _is_withheld = False  # the client's leaving, as far as the application goes on without it
    _outer: Exchange | None = None  # of a middleware further out
    _outer_token: CancelationToken | None = None  # that was in the scope

    def _token_in_another(self) -> CancelationToken:
        """Belong to a request that has a token already: the middleware is installed twice, as a rule."""
        self._outer = self._scope.get(EXCHANGE_KEY)
        self._outer_token = self._scope[TOKEN_KEY]
        token = CancelationToken() if self._outer_token is None else self._outer_token.child()
        if self._outer is not None:
            self._outer._inner = self
        return token

    def start(  # noqa: C901, PLR0915 (each call would take its time)
        self, scope: Scope, receive: Receive, send: Send, middleware: RequestCancelationMiddleware
    ) -> Awaitable[None] | None:
        """Call the application, and take its first step, in the task that will await the rest.

        Most requests are over with that. For them, all that is done here is to be little, and there is no
        ``__init__()``: with that, to make an object of a class with slots takes twice as long.

        Args:
            scope: The ASGI scope.
            receive: The server's.
            send: The server's.
            middleware: Who calls us.

        Returns:
            What is left to be awaited, unless the request is over.
        """
        self._server_send = send
        self._is_open = True
        self._phase = NOT_STARTED
        self.status = None
        self._last_kind = "http.response.body"
        self._scope = scope
        self._middleware = middleware
        self._server_receive = receive
        self._has_ended = False
        self._reader: Reader | None = None  # made when it is first asked for
        self._course: Course | None = None
        self._monitors: Monitors | None = None
        place: Place = None
        is_nested = TOKEN_KEY in scope
        if is_nested:
            token = self._token_in_another()
        else:
            token = CancelationToken()
            method: Any = send
            if (
                type(method) is MethodType and method.__func__ is middleware._easy_send
            ) or middleware._can_send_easily(send):
                place = note_place_in_asyncio(OUTERMOST)
        self._token = token
        if place is None:
            own_send = self._begin_carefully()  # nothing may fail after it
        else:
            own_send = self.send
            self._place: Place = place  # of the scope around the application, and that once it is needed:
            self._work_scope: OpenScope | None = None
            self._sender = None
        token._owner = self  # what it has heard before, `_begin_to_wait` asks for
        scope[TOKEN_KEY] = token
        scope[EXCHANGE_KEY] = self
        mark: Mark = [self, current_mark()]
        set_mark(mark)
        try:
            steps = middleware.app(scope, self.receive, own_send)
            if type(steps) is not CoroutineType:
                steps = steps_of(steps)
            for trap in steps.__await__():
                return self._go_on(steps, trap, mark)
        except BaseException as error:
            self._error = error
        else:
            self._has_ended = True  # before the look: signal handlers may cancel the token at any line
            if not (self._course or self._monitors or token._causes or is_nested):
                # As `_finish` does if nothing has happened: who makes a scope has made the `monitors` first.
                self._is_open = False
                token._owner = None
                mark[0] = None
                if mark[1] is not None:  # else what is there may stay: who asks sees that the request is over
                    set_mark(mark[1])
                    mark[1] = None
                scope[EXCHANGE_KEY] = None
                if self._reader is not None:
                    self._reader.close(self._farewell)
                return None
            self._has_ended = False
        self._take_off()
        return self._finish(mark)

    @coroutine
    def _go_on(  # noqa: C901 (each call would take its time)
        self, steps: Any, trap: Any, mark: Mark
    ) -> Generator[Any, Any, None]:
        """Await the rest of the application, and end the request: quietly, as a rule, or by `_finish`.

        Does what `_steps.go_on` does, and has its frame in common with it: each open request has one. What is
        left after the steps by hand is awaited itself, and not by its ``__await__()``, so that debuggers can
        look through.
        """
        answer = interruption = None
        try:
            turns, turn = self._begin_to_wait(trap), trap
            while True:
                try:
                    answer = yield trap
                except GeneratorExit:  # whoever closes us gives nobody anything to wait in
                    steps.close()
                    raise
                except BaseException as error:
                    interruption = error
                if interruption is not None:
                    trap, interruption = steps.throw(interruption), None
                elif answer is None and not turns:
                    trap = turn = None  # else what they have brought would be kept
                    yield from steps
                    break
                else:
                    trap = steps.send(answer)
                if turns:
                    turns = turns - 1 if trap is turn else 0
                    if not turns:
                        self._wait_on()
        except StopIteration:  # of a step that was the last
            pass
        except BaseException as error:
            self._error = error
        finally:
            answer = interruption = trap = turn = None
        if self._error is not None or not self._has_ended_quietly(mark):
            yield from self._finish(mark).__await__()

    def _has_ended_quietly(self, mark: Mark) -> bool:
        """Do at once all that `_finish` does, if nothing has happened to the request but that it waited.

        Returns:
            Whether that was all: else there is something to see to, or to wait for.
        """
        monitors, token = self._monitors, self._token
        assert monitors is not None  # made when the application began to wait
        self._has_ended = True  # before the look: see `start`
        try:
            if self._course or monitors.running or token._causes or self._outer or self._outer_token:
                is_quiet = False
            else:
                if (crowd := monitors.crowd) is not None:
                    monitors.crowd = None
                    crowd.leave(self)
                if self._work_scope is None:
                    self._work_scope = NEVER_OPENED
                    is_quiet = not monitors.running
                else:
                    is_quiet = not monitors.running and self._has_left_scope(self._work_scope)
            if is_quiet:
                self._is_open = False
                token._owner = None
                mark[0] = None
                if mark[1] is not None:
                    set_mark(mark[1])
                    mark[1] = None
                self._scope[EXCHANGE_KEY] = None
                self._middleware._shutdown.leave(self)
                if self._reader is not None:
                    self._reader.close(self._farewell)
                self._place = None
        except BaseException:  # of a signal handler: whatever is left undone, nobody must wait for it
            self._leave()
            self._let_go()
            raise
        self._has_ended = is_quiet
        return is_quiet

    def _has_left_scope(self, scope: OpenScope) -> bool:
        """Leave the scope without an error. Returns whether that went well."""
        try:
            scope.close(None)
        except BaseException as error:  # others in it are still open, say
            self._error = error
            self._work_scope = NEVER_OPENED  # any more
        return self._error is None

    async def _finish(self, mark: Mark) -> None:
        """The application has ended: see to it that the client gets an answer, and let go of everything."""
        try:
            self._application_ended(mark)
            try:
                if self._error is not None or self._token.is_cancelled:
                    await self._settle()
            finally:
                self._end(mark)
                if self._monitors is not None and self._monitors.running and not self._is_closed:
                    await self._wait_for(self._monitors)
        finally:
            try:
                if self._course is not None and self._course.has_clean_ups and not self._is_closed:
                    await self._course.clean_up()
            finally:  # whoever cancels us natively: the server's end waits for who does not leave
                self._leave()
                self._let_go()
        failure = self._error
        if failure is not None:
            self._error = None
            try:
                raise failure
            finally:
                del failure  # else the frame, its traceback and all locals on it would wait for the collector

    def _begin_carefully(self) -> Send:
        """Begin where nobody can send as easily as on uvicorn, and perhaps no scope can be put in later.

        Returns:
            The ``send`` for the application.
        """
        self._sender = NOBODY
        if self._outer is None:  # and not when the application waits: perhaps none ever does
            self._shutdown.ask_server(self._server_send)
        self._place = note_place()
        self._work_scope = None
        if self._place is None:
            self._monitors = Monitors(this_loop())  # now, since no place tells of the loop
            self._work_scope = EagerScope()
        elif self._place[3] is None and self._is_http:
            self._sender = None
            return self.send_in_trio
        return self.send

    def _take_off(self) -> None:
        """Let the server's end know of the request: it will not be over in this very step.

        Who begins it in the middle of the step, as a signal handler may, finds the request by its context.
        """
        if self._outer is None:
            shutdown = self._middleware._shutdown
            shutdown.in_flight.add(self)
            if shutdown.token._causes:
                self.course.react_late(shutdown.token._causes[0])

    def _give_back_scope(self) -> None:
        """Have the ASGI scope tell of the request around this one, if there is one."""
        self._scope[TOKEN_KEY] = self._outer_token or self._token
        self._scope[EXCHANGE_KEY] = self._outer

    def _leave(self) -> None:
        if self._outer is not None:
            self._outer._inner = None
        else:
            self._shutdown.leave(self)

    def _application_ended(self, mark: Mark) -> None:
        try:
            if close_work_scope(self, self._error):
                self._error = None
        except BaseException as remaining:  # of a group in which there was our cancelation, too
            if not self._is_closed:  # from another task, perhaps: then the scope complains
                self._error = remaining
        set_mark(mark[1])
        self._give_back_scope()
        if self._course is not None:
            self._course.application_ended()

    def _end(self, mark: Mark) -> None:
        """Let nothing happen to the request any more."""
        self._has_ended = True
        mark[:] = None, None
        self._token._owner = None
        if self._course is not None:
            self._course.end()
        if self._monitors is not None and self._monitors.crowd is not None:
            self._monitors.crowd.leave(self)
        if self._reader is not None:
            self._reader.stop()
        self.stop_reading()

    @property
    def _is_closed(self) -> bool:
        """Whether our coroutine is being closed: whoever does that gives us nothing to wait in."""
        return isinstance(self._error, GeneratorExit)

    async def _wait_for(self, monitors: Monitors) -> None:
        interruption = await monitors.wait()
        if interruption is not None and self._error is None:
            try:
                raise interruption
            finally:
                del interruption

    def _let_go(self) -> None:
        """Break the circles in which the parts of a request know each other."""
        self._course = None
        self._place = None
        if self._reader is not None:
            self._reader.close(self._farewell)
        self._is_open = False

    @property
    def is_over(self) -> bool:
        """Whether nothing can happen to the request any more."""
        return self._has_ended

    # --- Being monitored

    @property
    def reader(self) -> Reader:
        """Who reads what the client sends. Most applications do not ask before they have ended."""
        if self._reader is None:
            self._reader = Reader(self._server_receive, self)
            if self._has_ended:
                self._reader.close(self._farewell)
        return self._reader

    def receive(self) -> Awaitable[Message]:
        """Give the application its next message: the ``receive`` that it is called with."""
        return self.reader.receive()

    @property
    def _is_http(self) -> bool:
        return bool(self._scope["type"] == "http")

    @property
    def _work(self) -> OpenScope:
        """The scope around the application."""
        if self._work_scope is not None:
            return self._work_scope
        _ = self.monitors  # which ask the place for the loop, while it is known
        return make_work_scope(self)

    @property
    def _farewell(self) -> Message:
        return _HTTP_FAREWELL if self._is_http else _WEBSOCKET_FAREWELL

    @property
    def _options(self) -> Options:
        return self._middleware._options

    @property
    def _shutdown(self) -> Shutdown:
        return self._middleware._shutdown

    @property
    def monitors(self) -> Monitors:
        """What works for the request. Before the application waits, only its own thread may ask."""
        if self._monitors is None:
            loop = self._middleware._shutdown.loop  # nearly always the one
            if loop is None or loop.native is not running_loop():
                loop = this_loop(loop_of(self._place))
            monitors = Monitors(loop)
            self._monitors = self._monitors or monitors  # of a signal handler that was here meanwhile
        return self._monitors

    @property
    def loop(self) -> EventLoopToken:
        """The event loop of the request. Before the application waits, only for its own thread."""
        return self.monitors.loop.token

    @property
    def knows_its_loop(self) -> bool:
        """Whether `loop` can be asked for here: another thread has to wait until the application does."""
        return self._monitors is not None or is_here(self._place)

    @property
    def began(self) -> float:
        """When the application began to wait, on the loop's clock, in seconds; infinity before."""
        return inf if self._monitors is None else self._monitors.began

    def now(self) -> float:
        """Return the time on the loop's clock, in seconds: events come from outside of tasks, too."""
        return self.monitors.loop.now()

    def _begin_to_wait(self, trap: object) -> int:
        """The application waits for something, for the first time.

        Returns:
            How many steps it may take by hand before it has to `_wait_on`: it may be over by then.
        """
        middleware, monitors = self._middleware, self.monitors
        can_wait = type(trap) is Future and self._place is not None
        if not can_wait:
            put_in_work_scope(self)
        self._take_off()
        monitors.context = copy_context()
        monitors.began = now = monitors.loop.now()
        is_limited = middleware._options.shortest_timeout < LONGEST or shortest_timeout() < LONGEST
        cannot_wait = self._course is not None or (is_limited and self._limit() < LONGEST)
        turns = TURNS if trap is monitors.loop.turn and not cannot_wait else 0
        if not turns:
            (monitors.loop.crowd or crowd_of(monitors.loop)).enter(self, monitors, now, cannot_wait)
        if self._token._causes and self._cause is None:
            self._cancelled(self._token._causes[0])  # another thread was not told where to call us
        return turns or can_wait

    def _wait_on(self) -> None:
        """The application goes on waiting: have all be there that it could do without until now."""
        put_in_work_scope(self)
        monitors = self._monitors
        assert monitors is not None  # made when it began to wait
        if monitors.crowd is None:
            loop = monitors.loop
            (loop.crowd or crowd_of(loop)).enter(self, monitors, loop.now(), self._course is not None)

    def monitor(self) -> None:
        """See to it from now on that the client's leaving and the deadline are noticed. Called once."""
        self.reader.start()
        if self._course is not None or self._limit() < inf:
            self.course.start()

    def _limit(self) -> float:
        """Return what the shortest time limit is that the request may turn out to have, in seconds."""
        limit = self._options.default_timeout if self._is_http else self._options.websocket_timeout
        if shortest_timeout() == inf:
            return inf if limit is None else limit
        return min(inf if limit is None else limit, self._limit_of_route())

    def _limit_of_route(self) -> float:
        if not is_routed(self._scope):
            return shortest_timeout()
        policy = policy_of(self._scope)
        return inf if policy is None or policy.limit is None else policy.limit

    def call_at(self, when: float, function: Callable[[], object]) -> Pending:
        """Have *function* called at a time on the loop's clock. Returns what takes it back."""
        return self.monitors.call_at(when, function)

    def start_reading(self) -> None:
        """Start the reader."""
        # In the very context, for each request has one: who asks for this works for the application.
        monitors = self.monitors
        monitors.reading = monitors.spawn(self.reader.run, monitors.context)

    def stop_reading(self) -> None:
        """Cancel the reader's task, if there is one."""
        if self._monitors is not None and self._monitors.reading is not None:
            self._monitors.reading.cancel()

    @property
    def read_ahead(self) -> int:
        """How many bytes may wait for the application."""
        return self._options.read_ahead

    @property
    def reads_on_demand(self) -> bool:
        """Whether nothing may be read before the application first asks."""
        return expects_continue(self._scope) or (self._must_answer and has_body(self._scope))

    @property
    def has_stopped(self) -> bool:
        """Whether the application was stopped."""
        return self._cause is not None

    @property
    def goes_on(self) -> bool:
        """Whether the client has left, and the policy has the application go on for now."""
        return self._is_withheld

    @property
    def withholds_disconnect(self) -> bool:
        """Whether the application is not told of the disconnect.

        It is told if its body will never be complete: it would wait for ever. An inner middleware is told,
        and decides likewise.
        """
        if not self._is_withheld or not self._is_http or self._inner is not None:
            return False
        is_complete = self.reader.is_complete
        return not has_body(self._scope) if is_complete is None else is_complete

    @property
    def can_step(self) -> bool:
        """Whether anybody may begin a call of the server's ``receive()``, and the reader end it."""
        return self._is_http and can_change_tasks(self._server_receive)

    @property
    def answer_timeout(self) -> float:
        """How long a message may take that the client does not wait for, in seconds."""
        return self._options.answer_timeout

    @property
    def _must_answer(self) -> bool:
        return is_in_base_http_middleware(self._server_receive, self._server_send)

    # --- What may happen to the request

    def hung_up(self) -> None:
        """The reader has heard that the client has left."""
        if not self._must_answer:
            self.cut_off()
        self._disconnected()

    async def closing(self, message: Message) -> None:
        """A WebSocket is about to be closed with *message*, by the application or by us."""
        # Soon over, and shielded: a handler must not go on with a connection that nobody reads from.
        with anyio.move_on_after(self._options.answer_timeout, shield=True):
            await self.reader.end(own_farewell(message))

    def broke(self) -> bool:
        """The server refuses a message: the client has left. Returns whether the application should know."""
        self._disconnected()
        if not self._is_http:
            return True
        if self._phase is Phase.COMPLETE:  # which is no event, but no error either for who goes on
            return self.course.ends_with_its_client
        if self._is_withheld and not self._must_answer:
            self.cut_off()
        return not self._is_withheld

    def _disconnected(self) -> None:
        """The client has left, or the server has closed the books of a response that is complete."""
        self.abandon()
        if self._phase is Phase.COMPLETE or self._is_gone:
            return
        self._is_gone = True
        self._departure = Cancelation(CancelationReason.DISCONNECT)
        self._is_withheld = True  # until the course decides otherwise
        self.course.react(self._departure)

    def tell_of_departure(self) -> None:
        """The application goes on without its client no more."""
        self._is_withheld = False
        if self._reader is not None:
            self._reader.tell()

    def sent_late(self, message: Message) -> None:
        """The application sends to a client that has left."""
        if message["type"] == "websocket.send":  # a handler that did not take the hint
            self._leave_application()
        elif self._phase is Phase.COMPLETE:  # after which there is a disconnect in any case
            self.tell_of_departure()

    def shut_down(self, event: Cancelation) -> None:
        """The server has begun to stop."""
        self.course.react(event)

    def _leave_application(self) -> None:
        course = self.course
        if self._departure and not course.is_committed and course.policy.on_disconnect == "cancel":
            self._stop(self._departure)

    def _end_application(self, event: Cancelation) -> None:
        if event is self._departure and not self._is_http and self.reader.is_awaited:
            # A WebSocket handler that waits for a message gets ``websocket.disconnect`` this very
            # moment. It hears of the end in its own way, and gets the time to say goodbye.
            self._work.deadline = self.now() + self._options.websocket_grace
        else:
            self._stop(event)  # even if the token was cancelled before, and the application left to go on
        if event is self._departure:
            self.tell_of_departure()

    @property
    def outermost(self) -> Exchange:
        """The exchange of the middleware that is furthest out: the one that hears of the server's end."""
        return self if self._outer is None else self._outer.outermost

    @property
    def course(self) -> Course:
        """What has happened to the request, and what will."""
        if self._course is None:
            self._course = Course(self)
        return self._course

    def _time_out(self, limit: float) -> None:
        if self._phase is Phase.COMPLETE:
            self.abandon()  # the application's tasks run on, but for one that cannot hand it over
        else:
            self.course.react(Cancelation(CancelationReason.TIMEOUT, f"timed out after {limit:g} seconds"))

    def _cancel(self, cancelation: Cancelation) -> None:
        try:
            self._token.cancel_with(cancelation)
        except Exception as error:  # of a callback of the application's, whose caller is this monitor
            report([error])

    def hear(self, cause: Cancelation, site: CallSite) -> None:
        """The token was cancelled, by whatever thread."""
        if self._token._owner is None:
            return  # what comes after the first cause is nothing to us
        # Two threads may get here at the same time: to be `_cancelled` for one cause twice does no harm.
        self._token._owner = None
        if not self.knows_its_loop:
            return  # the application is in its first step, and `_begin_to_wait` will ask the token
        if site.is_in(self.loop.native_token):
            self._cancelled(cause)
        else:
            call_soon(self.loop, self._cancelled, cause)

    def _cancelled(self, cancelation: Cancelation) -> None:
        """The token was cancelled. Runs in the loop, perhaps too late."""
        if not self._has_ended:
            self.course.notice()
        if not self._is_decided_about(cancelation):
            self._stop(cancelation)

    def _is_decided_about(self, cancelation: Cancelation) -> bool:
        """Whether it is an event that this course, or that of an outer middleware, reacts to."""
        is_event = cancelation is self._departure or cancelation is self._shutdown.event
        return is_event or (self._outer is not None and self._outer._is_decided_about(cancelation))

    def _stop(self, cancelation: Cancelation) -> None:
        if not self._has_ended:
            self._cause = cancelation
            self._work.cancel(f"{cancelation.reason}: {cancelation}")
            if self._is_http and self._phase is not Phase.COMPLETE:
                self.shut()
            if self._is_http and not self._is_answered_early and not self._is_in_vain(cancelation):
                self._is_answered_early = True
                self.monitors.spawn(self._answer_early)

    # --- What becomes of it

    async def _settle(self) -> None:
        """The application has ended: answer in its place if it was cancelled before it could."""
        if self._error is None:
            cancelation = self._cause or self._token.cancelation
        else:
            cancelation = self._handled_cancelation(self._error)
            if cancelation is None:
                return
            self._error = None
        assert cancelation is not None
        self.course.note(cancelation)
        await self._answer(cancelation)

    def _handled_cancelation(self, error: BaseException) -> Cancelation | None:
        """Return the cancelation that *error* reports, unless it is a failure that the server should see."""
        quiet = self._options.disconnect_errors
        if self._is_gone and quiet and all(isinstance(leaf, quiet) for leaf in leaves(error)):
            return self._departure
        if self._is_http and self._phase is Phase.COMPLETE and not self._token.is_cancelled:
            return None  # of a background task: no client is waiting for an outcome
        if error.__cause__ is not None and str(error) == STARLETTE_COULD_NOT_ANSWER:
            error = error.__cause__
        return cancelation_in(error)

    async def _answer_early(self) -> None:
        """Answer for an application that was stopped.

        A thread or a shielded section may keep it busy: the client need not wait for it.
        """
        assert self._cause is not None
        await self._answer(self._cause)

    def _is_in_vain(self, cancelation: Cancelation) -> bool:
        """Whether nobody is there to read an answer."""
        is_gone = self._is_gone or cancelation.reason is CancelationReason.DISCONNECT
        return is_gone and not self._must_answer

    async def _answer(self, cancelation: Cancelation) -> None:
        """Send the outcome, unless the application has answered or nobody is there to read it."""
        if self._is_in_vain(cancelation):
            return
        messages = self._outcome(cancelation)
        if messages and self.take_over():
            await self._send_outcome(messages)

    async def _send_outcome(self, messages: Iterable[Message]) -> None:
        try:
            with anyio.move_on_after(self._options.answer_timeout):
                await self.send_outcome(messages)
        except OSError:  # the client left this very moment (ASGI 2.4)
            pass
        except Exception as error:  # of the server: the application's own error must not be lost for it
            report([error])

    def _outcome(self, cancelation: Cancelation) -> tuple[Message, ...]:
        has_not_started = self._phase is Phase.NOT_STARTED
        if self._is_http:
            return http_messages(cancelation) if has_not_started else ()
        return denial_messages(cancelation, self._scope) if has_not_started else (close_message(cancelation),)
