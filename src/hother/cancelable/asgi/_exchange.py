"""One request or WebSocket, from its first message to its outcome.

Tasks: the application runs in the task that the server called us in, inside a scope of ours. Beside
it, in one task group, run the reader, and the watch: it keeps the deadline, and answers the client of
an application that was stopped and is still busy.

What the application raises never passes through the task group, which would put it in an exception
group: it is carried around it.
"""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar

import anyio
from anyio import CancelScope
from anyio.abc import TaskGroup
from anyio.lowlevel import current_token

from .._core._errors import cancelation_in, leaves
from .._core._observers import report
from .._core._reasons import Cancelation, CancelationReason
from .._core._token import CancelationToken
from .._core._wakeup import run_in, thread_safe_clock
from ._course import Course
from ._options import Options
from ._outcome import close_message, denial_messages, http_messages
from ._quirks import STARLETTE_COULD_NOT_ANSWER, expects_continue, has_body, is_in_base_http_middleware
from ._receive import Reader
from ._response import Phase, Response
from ._shutdown import Shutdown
from ._types import ASGIApp, Message, Receive, Scope, Send

TOKEN_KEY = "cancelation_token"
"""Where the request's token is in the ASGI scope."""

EXCHANGE_KEY = "cancelation_exchange"
"""Where the request's exchange is in the ASGI scope: for us, not for applications."""

# A weak reference: tasks that the application or the server starts inherit it, and may outlive the request.
_exchange: ContextVar[weakref.ref[Exchange] | None] = ContextVar("request_exchange", default=None)


def current_exchange() -> Exchange | None:
    """Return the exchange that this code works for, or ``None``. Never blocks."""
    reference = _exchange.get()
    return None if reference is None else reference()


def current_request_token() -> CancelationToken | None:
    """Return the token of the request that this code works for, or ``None``. Never blocks."""
    exchange = current_exchange()
    return None if exchange is None else exchange._token


class Exchange:
    """Runs the application for one request, and ends it when nobody needs it any more."""

    # What few requests have is here, on the class: the others pay nothing for it.
    _course: Course | None = None
    _departure: Cancelation | None = None
    _inner: Exchange | None = None  # of a middleware further in

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, options: Options, shutdown: Shutdown
    ) -> None:
        self._scope = scope
        self._options = options
        self._shutdown = shutdown
        self._outer: Exchange | None = scope.get(EXCHANGE_KEY)  # of a middleware further out
        self._server_send = send
        self._is_http = scope["type"] == "http"
        self._must_answer = is_in_base_http_middleware(receive, send)
        self._outer_token: CancelationToken | None = scope.get(TOKEN_KEY)  # if installed twice
        self._token = CancelationToken() if self._outer_token is None else self._outer_token.child()
        self._work = CancelScope()
        self._stopped = anyio.Event()
        self._cause: Cancelation | None = None  # why the application was stopped
        self._reading = CancelScope(shield=True)
        self._monitors = 2  # how many are running: the reader and the watch
        self._monitors_ended = anyio.Event()
        self._is_gone = False
        self._has_ended = False
        self._error: BaseException | None = None
        self._reader = Reader(
            receive,
            read_ahead=options.read_ahead,
            wait_for_demand=expects_continue(scope) or (self._must_answer and has_body(scope)),
            on_disconnect=self._disconnected,
        )
        self._response = Response(
            send,
            is_gone=lambda: self._reader.has_disconnected and not self._must_answer,
            on_late_send=self._sent_late,
            on_broken=self._disconnected,
            patience=options.answer_timeout,
        )

    async def run(self, app: ASGIApp) -> None:
        """Call *app*, and see to it that the client gets an answer."""
        self._enter()
        try:
            async with anyio.create_task_group() as tasks:
                await self._run_beside(tasks, app)
        finally:
            if self._course is not None and self._course.has_clean_ups:
                await self._course.clean_up()
            self._leave()
        error = self._error
        self._let_go()
        if error is not None:
            try:
                raise error
            finally:
                del error  # else the frame, its traceback and all locals on it would wait for the collector

    def _enter(self) -> None:
        self._loop = current_token()
        self._clock = thread_safe_clock(self._loop)  # events come from outside of tasks, too
        if self._outer is not None:
            self._outer._inner = self
            return
        self._shutdown.enter(self, self._server_send)
        if (event := self._shutdown.event) is not None:
            self.course.react_late(event)

    def _leave(self) -> None:
        if self._outer is not None:
            self._outer._inner = None
        else:
            self._shutdown.leave(self)

    async def _run_beside(self, tasks: TaskGroup, app: ASGIApp) -> None:
        remove_callback = self._token.add_callback(lambda cause: run_in(self._loop, self._cancelled, cause))
        try:
            tasks.start_soon(self._run_monitor, self._read)
            tasks.start_soon(self._run_monitor, self._watch)
            await self._run_application(app)
            await self._settle()
        finally:
            self._has_ended = True
            if self._course is not None:
                self._course.log()
            remove_callback()
            self._reading.cancel()
            self._stopped.set()  # rather than a cancel: an answer may be on its way
            if isinstance(self._error, Exception):
                # Leaving the task group must not wait: if the server cancels us there, its exception
                # would take the place of the application's error.
                with CancelScope(shield=True):
                    await self._monitors_ended.wait()

    async def _run_monitor(self, monitor: Callable[[], Awaitable[None]]) -> None:
        # The monitors are shielded, each for itself: if the server cancels us, it is enough that the
        # application is interrupted, since they end with it.
        try:
            await monitor()
        finally:
            self._monitors -= 1
            if not self._monitors:
                self._monitors_ended.set()

    async def _run_application(self, app: ASGIApp) -> None:
        self._scope[TOKEN_KEY] = self._token
        self._scope[EXCHANGE_KEY] = self
        outer_exchange = _exchange.get()
        _exchange.set(weakref.ref(self))
        try:
            with self._work:
                await app(self._scope, self._reader.receive, self._response.send)
        except BaseException as error:
            self._error = error
        finally:
            _exchange.set(outer_exchange)
            self._scope[TOKEN_KEY] = self._outer_token or self._token
            self._scope[EXCHANGE_KEY] = self._outer
            if self._course is not None:
                self._course.application_ended()

    def _let_go(self) -> None:
        """Break the circles in which the parts of a request know each other."""
        self._error = self._course = None
        self._reader.close(
            {"type": "http.disconnect"} if self._is_http else {"type": "websocket.disconnect", "code": 1005}
        )
        self._response.close()

    # --- What may happen to the request

    async def _read(self) -> None:
        with self._reading:
            await self._reader.run()

    def _disconnected(self) -> None:
        """The client has left, or the server has closed the books of a response that is complete."""
        self._response.abandon()
        if self._response.phase is Phase.COMPLETE or self._is_gone:
            return
        self._is_gone = True
        self._departure = Cancelation(CancelationReason.DISCONNECT)
        self.course.react(self._departure)

    def _sent_late(self, message: Message) -> None:
        """The application sends to a client that has left."""
        if message["type"] == "websocket.send":  # a handler that did not take the hint
            self._leave_application()

    def shut_down(self, event: Cancelation) -> None:
        """The server has begun to stop."""
        self.course.react(event)

    def _leave_application(self) -> None:
        course = self.course
        if self._departure and not course.is_committed and course.policy.on_disconnect == "cancel":
            self._stop(self._departure)

    def _end_application(self, event: Cancelation) -> None:
        if event is self._departure and not self._is_http and self._reader.is_awaited:
            # A WebSocket handler that waits for a message gets ``websocket.disconnect`` this very
            # moment. It hears of the end in its own way, and gets the time to say goodbye.
            self._work.deadline = self._clock() + self._options.websocket_grace
        else:
            self._stop(event)  # even if the token was cancelled before, and the application left to go on

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

    async def _watch(self) -> None:
        """Wait for the deadline, or for anything else that stops the application; then answer for it.

        A thread or a shielded section may keep the application busy: the client need not wait for it.
        """
        course = self.course
        course.start()
        while not self._stopped.is_set():
            with course.alarm() as alarm:
                await self._stopped.wait()
            if alarm.cancelled_caught:
                course.look()
        if self._cause is not None and self._is_http:
            with CancelScope(shield=True):
                await self._answer(self._cause)

    def _time_out(self, limit: float) -> None:
        if self._response.phase is Phase.COMPLETE:
            self._response.abandon()  # the application's tasks run on, but for one that cannot hand it over
        else:
            self.course.react(Cancelation(CancelationReason.TIMEOUT, f"timed out after {limit:g} seconds"))

    def _cancel(self, cancelation: Cancelation) -> None:
        try:
            self._token.cancel_with(cancelation)
        except Exception as error:  # of a callback of the application's, whose caller is this monitor
            report([error])

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
            if self._is_http and self._response.phase is not Phase.COMPLETE:
                self._response.shut()
            self._stopped.set()

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
        if cancelation is not None:
            self.course.note(cancelation)
            await self._answer(cancelation)

    def _handled_cancelation(self, error: BaseException) -> Cancelation | None:
        """Return the cancelation that *error* reports, unless it is a failure that the server should see."""
        quiet = self._options.disconnect_errors
        if self._is_gone and quiet and all(isinstance(leaf, quiet) for leaf in leaves(error)):
            return self._departure
        if self._is_http and self._response.phase is Phase.COMPLETE and not self._token.is_cancelled:
            return None  # of a background task: no client is waiting for an outcome
        if error.__cause__ is not None and str(error) == STARLETTE_COULD_NOT_ANSWER:
            error = error.__cause__
        return cancelation_in(error)

    async def _answer(self, cancelation: Cancelation) -> None:
        """Send the outcome, unless the application has answered or nobody is there to read it."""
        is_gone = self._is_gone or cancelation.reason is CancelationReason.DISCONNECT
        if is_gone and not self._must_answer:
            return
        messages = self._outcome(cancelation)
        if messages and self._response.take_over():
            await self._send_outcome(messages)

    async def _send_outcome(self, messages: Iterable[Message]) -> None:
        try:
            with anyio.move_on_after(self._options.answer_timeout):
                await self._response.send_outcome(messages)
        except OSError:  # the client left this very moment (ASGI 2.4)
            pass
        except Exception as error:  # of the server: the application's own error must not be lost for it
            report([error])

    def _outcome(self, cancelation: Cancelation) -> tuple[Message, ...]:
        has_not_started = self._response.phase is Phase.NOT_STARTED
        if self._is_http:
            return http_messages(cancelation) if has_not_started else ()
        return denial_messages(cancelation, self._scope) if has_not_started else (close_message(cancelation),)
