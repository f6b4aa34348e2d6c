"""One stream, from its first piece to its end.

Tasks: the generator runs in the task that the server called us in, in the block of the stream's operation.
Beside it, in one task group in that block, run the listener and, if there is something for it to do, the
courier. The listener waits for the client to leave. Since it sits in the block, whatever else ends the
stream (the operation, its deadline, a scope around it) interrupts it, too; and then it sees to the end.

1. The generator is interrupted where it waits, or closed where it is suspended: by its own task, and
   before the scopes are left that it was started in, since it may hold scopes of its own across a ``yield``.
2. The generator is protected by ``_work``, which is not cancelled but opened, at once or after a while. So
   it can be closed up again, the moment that the interruption arrives, for the generator to clean up in.
3. What an item or a server raises is carried around the task group, which would wrap it.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Any

from anyio import (
    CancelScope,
    Event,
    create_task_group,
    current_time,
    get_cancelled_exc_class,
    move_on_after,
    sleep_forever,
)
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled
from starlette.types import Message, Receive, Scope, Send

from .._callbacks import run_all
from .._core._errors import CancelationError, error_for
from .._core._lifecycle import OperationStatus
from .._core._reasons import Cancelation, CancelationReason
from .._core._token import CancelationToken
from .._scope import Cancelable
from ..asgi import TOKEN_KEY
from ..asgi._current import current_exchange
from ..asgi._exchange import EXCHANGE_KEY
from ..asgi._outcome import root_of
from ..asgi._quirks import is_in_base_http_middleware
from ._closing import close_all
from ._courier import Courier
from ._drain import Drain
from ._draining import wait_with_patience
from ._interruptions import tell_of_interruptions
from ._manner import Manner
from ._outlet import Outlet
from ._regroup import AsTheyCome, Chunks

CLOSING_BUDGET = 10.0
"""How long a generator may take to clean up, in seconds."""

_DISCONNECTS = frozenset({"http.disconnect", "websocket.disconnect"})


class Delivery:
    """Sends one stream.

    Args:
        body: What to send.
        sources: What to close: the body, and what it was made of.
        operation: The operation whose part the stream is.
        manner: How to send it.
        scope: ASGI's.
        receive: ASGI's; not called behind our middleware, which has a better ear.
        send: ASGI's.
    """

    __slots__ = (
        "_awaited",
        "_body",
        "_courier",
        "_failure",
        "_has_enough",
        "_has_failed_late",
        "_is_closing",
        "_is_draining",
        "_is_ending",
        "_is_in_base",
        "_is_in_item",
        "_manner",
        "_monitors",
        "_monitors_ended",
        "_on_close",
        "_operation",
        "_outlet",
        "_receive",
        "_request_token",
        "_scope",
        "_sources",
        "_work",
    )

    def __init__(
        self,
        body: AsyncIterable[Any],
        sources: tuple[Any, ...],
        operation: Cancelable,
        manner: Manner,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._body = body
        self._sources = sources
        self._on_close = manner.on_close
        is_new = operation.status is OperationStatus.PENDING
        self._operation = operation if is_new else operation.follow()
        self._manner = manner
        self._scope = scope
        self._receive = receive
        token = scope.get(TOKEN_KEY)
        self._is_in_base = is_in_base_http_middleware(receive, send)
        self._request_token = token if isinstance(token, CancelationToken) else None
        self._outlet = Outlet(
            send,
            grouping=AsTheyCome() if manner.chunk_size is None else Chunks(manner.chunk_size),
            is_whole=manner.is_whole,
            send_timeout=manner.send_timeout,
            is_timed=manner.has_courier,
            on_broken=self._left,
        )
        self._courier: Courier | None = None
        if manner.has_courier:
            self._courier = Courier(
                self._outlet,
                flush_after=manner.flush_after,
                heartbeat=manner.heartbeat,
                interval=manner.heartbeat_interval,
            )
        self._work = CancelScope(shield=True)
        self._monitors = 0
        self._monitors_ended: Event | None = None  # made at the end: an idle one takes as much as a task
        self._failure: Exception | None = None
        self._has_failed_late = False  # when the stream was ended already
        self._awaited: Event | None = None  # the listener waits for the generator to get so far
        self._is_in_item = False
        self._has_enough = False  # no draining needed any more
        self._is_ending = False
        self._is_draining = False
        self._is_closing = False

    async def run(self, start: Message) -> bool:
        """Send the response.

        Returns:
            Whether all of it was handed to the server.

        Raises:
            CancelationError: If the operation was cancelled before the response started.
        """
        try:
            await self._run_in_operation(start)
            cancelation = self._operation.cancelation
            if cancelation is not None:  # a quiet operation
                raise error_for(cancelation, self._operation.context)
        except CancelationError as error:
            if not self._outlet.has_started and not _is_disconnect(error.cancelation):
                raise
        finally:
            self._outlet.let_go()
            await self._clean_up()
        return self._outlet.is_complete

    async def _run_in_operation(self, start: Message) -> None:
        self._operation.check()  # nothing is sent if it is all over
        async with self._operation:
            await checkpoint_if_cancelled()  # no time at all: a start would promise something
            try:
                await self._run_beside_monitors(start)
            finally:  # in whatever way: the failure of one task looks like a cancelation to the others
                self._raise_failure()

    def _fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
            self._has_failed_late = self._operation.cancelation is not None

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # else its traceback would wait for the collector

    async def _run_beside_monitors(self, start: Message) -> None:
        async with create_task_group() as tasks:
            self._start_monitor(tasks, self._listen)
            if self._courier is not None:
                self._start_monitor(tasks, self._courier.run)
            try:
                await self._deliver(start)
            except Exception as error:
                self._fail(error)
            finally:
                tasks.cancel_scope.cancel()
                # Leaving the task group must not wait: an interruption there would take the place
                # of the failure, or of success.
                with CancelScope(shield=True):
                    await self._wait_for_monitors()

    def _start_monitor(self, tasks: TaskGroup, monitor: Callable[[], Awaitable[None]]) -> None:
        self._monitors += 1
        tasks.start_soon(self._run_monitor, monitor)

    async def _run_monitor(self, monitor: Callable[[], Awaitable[None]]) -> None:
        try:
            await monitor()
        except Exception as error:  # of the server's
            self._fail(error)
            self._stop(Cancelation(CancelationReason.ERROR, f"the stream failed: {error!r}"))
        finally:
            self._monitors -= 1
            if not self._monitors and self._monitors_ended is not None:
                self._monitors_ended.set()

    async def _wait_for_monitors(self) -> None:
        if self._monitors:
            self._monitors_ended = Event()
            await self._monitors_ended.wait()

    # --- The generator

    async def _deliver(self, start: Message) -> None:
        await self._outlet.start(start)
        is_exhausted = False
        with self._work:
            try:
                self._sources = (body := aiter(self._body), *self._sources)
                is_exhausted = await self._send_items(body)
            finally:
                self._begin_to_close()
                self._tell_listener()
                await self._close()
        if self._work.cancelled_caught:  # closing took too long, and its interruption hid another one
            await checkpoint_if_cancelled()
        elif is_exhausted:
            await self._outlet.complete()

    async def _send_items(self, body: AsyncIterator[Any]) -> bool:
        """Send what the generator yields. Returns whether that was all."""
        outlet, encode = self._outlet, self._manner.encode
        send = outlet.flush if self._courier is None else self._courier.deliver
        while True:
            self._is_in_item = True
            try:
                item = await tell_of_interruptions(anext(body), self._interrupted)
            except StopAsyncIteration:
                break
            self._is_in_item = False
            if self._manner.drain is not None:
                self._drain(self._manner.drain, item)
            if not self._is_draining:
                self._tell_listener()
            outlet.add(encode(item))
            await send()
            await checkpoint()  # neither the generator nor the server's send() needs to be one
            if self._is_ending and (self._has_enough or not self._is_draining):
                return False
        return not self._is_closing  # it may have swallowed its interruption

    def _interrupted(self, error: BaseException) -> None:
        if self._is_ending and not self._work.shield and isinstance(error, get_cancelled_exc_class()):
            self._begin_to_close()

    def _begin_to_close(self) -> None:
        """From now on the generator cleans up, and is not disturbed in that."""
        if not self._is_closing:
            self._is_closing = True
            self._work.shield = True
            self._work.deadline = current_time() + CLOSING_BUDGET

    def _drain(self, drain: Drain, item: Any) -> None:
        if not self._has_enough and drain.until is not None and drain.until(item):
            self._has_enough = True

    def _tell_listener(self) -> None:
        if self._awaited is not None:
            self._awaited.set()

    async def _close(self) -> None:
        """Close the generator, and tell who wants to know. What is closed already does nothing."""
        sources, self._sources = self._sources, ()
        await close_all(sources)
        on_close, self._on_close = self._on_close, ()
        await run_all(on_close)  # not later: a server may keep what sends to a client that has stalled

    async def _clean_up(self) -> None:
        with move_on_after(CLOSING_BUDGET, shield=True):
            await self._close()  # if it was never started

    # --- What may happen to the stream

    async def _listen(self) -> None:
        """Wait until the client has left, or the stream ends for another reason; then see to the end."""
        try:
            with CancelScope() as self._outlet.patience:
                await self._until_told()
            if self._outlet.patience.cancelled_caught:
                message = f"the client took nothing for {self._manner.send_timeout:g} seconds"
                self._stop(Cancelation(CancelationReason.TIMEOUT, message))
            await sleep_forever()  # until the operation's block interrupts us
        finally:
            with CancelScope(shield=True):
                await self._end()

    async def _until_told(self) -> None:
        exchange = current_exchange()
        token = self._request_token
        if exchange is not None and token is not None and token is exchange._token:  # behind our middleware
            exchange.reader.start()  # a stream lasts: it need not stand in line to be monitored
            self._stop(await token.wait())
        elif self._may_receive():
            while (await self._receive())["type"] not in _DISCONNECTS:
                pass
            self._left()
        else:
            await sleep_forever()

    def _may_receive(self) -> bool:
        # As Starlette does it: servers of ASGI 2.4 raise from send(), and one of them takes a receive()
        # that is cancelled for a disconnect.
        version = self._scope.get("asgi", {}).get("spec_version", "2.0")
        return tuple(map(int, version.split("."))) < (2, 4)

    def _left(self) -> None:
        if not self._outlet.is_closed:  # servers report the end of a response in the same way
            self._stop(Cancelation(CancelationReason.DISCONNECT))

    def _stop(self, cancelation: Cancelation) -> None:
        self._operation._settle(cancelation)

    def _cause(self) -> Cancelation | None:
        """Why the stream ends, unless that is a failure, or unknown."""
        if self._failure is not None and not self._has_failed_late:
            return self._failure.cancelation if isinstance(self._failure, CancelationError) else None
        cancelation = self._operation.cancelation
        if cancelation is None and self._request_token is not None:
            cancelation = self._request_token.cancelation
        return cancelation

    # --- How it ends

    async def _end(self) -> None:
        """End the stream, unless it has ended by itself."""
        if self._outlet.is_complete:
            return
        cause = self._cause()
        self._is_ending = True
        if cause is not None and _is_disconnect(cause):
            self._outlet.abandon()
            if self._courier is not None:
                self._courier.release()
            await self._read_on()
            await self._finish_item()
        else:
            await self._finish_item()
            if self._is_cut_off:
                self._outlet.abandon()
            else:
                self._outlet.hurry()
        if not self._is_closing:
            self._work.shield = False
        if cause is not None and self._manner.is_whole and not _is_disconnect(cause):
            await self._say_farewell(cause)

    @property
    def _is_cut_off(self) -> bool:
        """Whether nothing that is sent arrives any more.

        A ``BaseHTTPMiddleware`` around us passes on what we send in a task of its own, and the middleware
        around both has stopped that, too. To wait for it would only take time.
        """
        exchange = self._scope.get(EXCHANGE_KEY)
        return self._is_in_base and exchange is not None and exchange.has_stopped

    async def _read_on(self) -> None:
        """Let the generator go on for a client who has left, for as long as that is wanted."""
        drain = self._manner.drain
        if drain is not None and not self._has_enough:
            self._is_draining = True
            exchange = self._scope.get(EXCHANGE_KEY)
            await wait_with_patience(self._wait_for_generator, drain.limit, self._operation, exchange)
            self._is_draining = False

    async def _finish_item(self) -> None:
        """Let the generator finish the item in hand, if that is wanted."""
        if self._manner.shields_items and self._is_in_item:
            with move_on_after(self._manner.shield_timeout):
                await self._wait_for_generator()

    async def _wait_for_generator(self) -> None:
        if not self._is_closing:
            self._awaited = Event()
            await self._awaited.wait()

    async def _say_farewell(self, cause: Cancelation) -> None:
        manner = self._manner
        farewell = b"" if manner.farewell is None else manner.farewell(cause)
        await self._outlet.finish(farewell, is_end=bool(farewell) and manner.ending == "complete")


def _is_disconnect(cancelation: Cancelation) -> bool:
    return root_of(cancelation).reason is CancelationReason.DISCONNECT
