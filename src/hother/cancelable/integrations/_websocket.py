"""A WebSocket whose calls end when its operation is cancelled, and whose close code says why.

1. One reader: the middleware's, if there is one; else this block's own, in front of the same
   ``receive()``. Outside of a block and without the middleware, each call reads by itself.
2. What the reader has taken from the server is handed to the application, in order, each message once:
   a call that is interrupted takes none, and what came before the client left can still be received.
3. Everything goes through the ``receive`` and ``send`` of the WebSocket that was given. So its state is
   the truth, for the framework as well, and nobody closes twice.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, final

import anyio
from anyio.lowlevel import checkpoint
from starlette.exceptions import WebSocketException
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from .._core._errors import (
    DisconnectCancelation,
    LifecycleError,
    cancelation_in,
)
from .._core._lifecycle import OperationStatus
from .._core._reasons import Cancelation, CancelationReason
from .._core._report import report
from .._core._timeouts import seconds
from .._core._token import CancelationToken
from .._ending import raise_again
from .._scope import Cancelable
from .._watch import Watch
from ..asgi import TOKEN_KEY
from ..asgi._exchange import EXCHANGE_KEY
from ..asgi._options import Options
from ..asgi._outcome import close_reason
from ..asgi._receive import Reader
from ..sources._source import Source
from ._calls import call
from ._websocket_closing import (
    NO_CODE,
    WRONG_KIND,
    cause_of,
    checked_codes,
    farewell,
    in_own_words,
    last_words,
)
from ._websocket_sources import Keepalive, LastWords, ReadAhead, Reading, Silence

if TYPE_CHECKING:
    from datetime import timedelta

    from typing_extensions import Self

    from ..asgi._types import Message

T = TypeVar("T")

READER_KEY = "cancelation_reader"
"""Where a reader of ours is in the ASGI scope, if there is no middleware."""


@final
class CancelableWebSocket(WebSocket):
    """A WebSocket whose calls end when its operation is cancelled.

    It can do all that Starlette's can, and is one. A call that waits is interrupted, in whatever task
    it waits, and raises the operation's `CancelationError`; so does every later call, but for `close`.
    Inside the operation's own block the call is interrupted by the block, which then raises that error.

    ::

        async with CancelableWebSocket(websocket, cancel, idle_timeout=60) as socket:
            await socket.accept()
            async for text in socket.iter_text():
                await socket.send_text(text)

    Its block is the operation's, unless that was entered already. It also reads ahead, if no middleware
    does, so that a handler that only sends hears of its client's leaving, and it closes the connection
    in the end: with 1000 if all went well, and with the code and the text of the cancelation if it was
    cut short. A connection that was not accepted by then is denied: with the cancelation's status and a
    problem document, or, where the server sends no such response, with its 403. Errors of other kinds are
    left to the framework, whose handlers choose the code.

    **When the client has left**, its operation is cancelled for that reason. A block is left with
    `DisconnectCancelation`, then. Outside of one, messages that came before can still be received; then
    Starlette's ``WebSocketDisconnect`` is raised, by every further call. Servers disagree about a
    connection that was lost without a word, and some never tell the code: all of that is 1005 here.
    What is sent to a client that has left is dropped; if there is no block that ends, the call raises
    `DisconnectCancelation`.

    Args:
        websocket: Starlette's (or FastAPI's) WebSocket.
        cancelable: The operation. It need not be entered; its timeout is each call's, then.
        idle_timeout: How long the client may send nothing, in seconds. Pings of the protocol do not
            count: servers answer those by themselves. Needs the block.
        send_timeout: How long the server may take to accept a message, in seconds, because its client
            does not read. Hypercorn's Trio worker cannot be interrupted in that: there it takes effect
            once the client reads again, or its connection breaks.
        keepalive: After how many seconds in which nothing was sent to send *keepalive_message*. For
            proxies that look for messages; servers send pings of the protocol. Needs the block.
        keepalive_message: What to send, as text or as bytes.
        read_ahead: How much of what the client sends waits for the handler, in bytes, if no middleware
            reads ahead. While more waits, the client's leaving cannot be seen.
        close_timeout: How long sending the close frame may take, in seconds.
        close_codes: Codes to close the connection with, by reason, instead of the usual ones.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a number is negative or NaN, or a close code must not be sent.
    """

    def __init__(
        self,
        websocket: WebSocket,
        cancelable: Cancelable,
        *,
        idle_timeout: float | timedelta | None = None,
        send_timeout: float | timedelta | None = None,
        keepalive: float | timedelta | None = None,
        keepalive_message: str | bytes = "",
        read_ahead: int = 65_536,
        close_timeout: float | timedelta | None = 5.0,
        close_codes: Mapping[CancelationReason, int] | None = None,
    ) -> None:
        # Not super().__init__(): all that is known about the connection is the other's, see __getattr__().
        if not isinstance(websocket, WebSocket):
            raise TypeError(f"websocket must be a Starlette WebSocket, got {websocket!r}")
        if not isinstance(cancelable, Cancelable):
            raise TypeError(f"cancelable must be a Cancelable, got {cancelable!r}")
        self._websocket = websocket
        self._cancelable = cancelable
        self._idle_timeout = _positive(idle_timeout, "idle_timeout")
        self._send_timeout = _or_infinite(seconds(send_timeout, "send_timeout"))
        self._keepalive = _positive(keepalive, "keepalive")
        self._keepalive_message = _sendable(keepalive_message)
        self._read_ahead = Options(read_ahead=read_ahead).read_ahead
        self._close_timeout = _or_infinite(seconds(close_timeout, "close_timeout"))
        self._close_codes = checked_codes(close_codes or {})
        self._receiving = anyio.ResourceGuard("receiving from")
        self._reader = _reader_of(websocket)
        self._own_reader: Reader | None = None
        self._sent_at = -inf  # on the event loop's clock
        self._is_lost = False  # the server said so when we sent
        self._is_stalled = False  # the client reads nothing
        self._closed: Message | None = None  # what we closed with
        self._farewell: Message | None = None  # what the client closed with
        self._block: Cancelable | None = None  # from entering on
        self._watch: Watch | None = None
        self._is_listening = False
        self._remove_callback: Callable[[], None] | None = None

    def __getattr__(self, name: str) -> Any:
        """Ask Starlette's WebSocket about the connection: ``scope``, ``client_state`` and the like."""
        if name == "_websocket":  # not even made yet
            raise AttributeError(name)
        return getattr(self._websocket, name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.scope.get('path')!r} {self.application_state.name.lower()}>"

    @property
    def close_code(self) -> int | None:
        """The code that the connection was closed with, by either side; ``None`` while it is open.

        1005 if it was lost, or the server does not tell the code.
        """
        message = self._closing
        return None if message is None else int(message.get("code", NO_CODE))

    @property
    def close_reason(self) -> str | None:
        """What the side that closed the connection said about it; ``None`` while it is open."""
        message = self._closing
        return None if message is None else message.get("reason") or ""

    # --- Receiving

    async def receive(self) -> Message:
        """Wait for the next ASGI message. A call that is interrupted takes none.

        The last one is ``websocket.disconnect``, which further calls return again.

        Raises:
            CancelationError: If the operation is cancelled.
            anyio.BusyResourceError: If another task waits for a message already.
        """
        self._check_block()
        with self._receiving:
            if self._farewell is None:
                message = await self._next_message()
                if message["type"] != "websocket.disconnect":
                    return message
                self._note_farewell(message)
        await checkpoint()  # a block that is over is left here
        return dict(cast("Message", self._farewell))

    async def receive_text(self) -> str:
        """Wait for a text message. A call that is interrupted takes none.

        Raises:
            CancelationError: If the operation is cancelled.
            starlette.websockets.WebSocketDisconnect: If the connection is closed.
            starlette.exceptions.WebSocketException: If the message is a binary one.
            anyio.BusyResourceError: If another task waits for a message already.
        """
        return cast("str", await self._take("text"))

    async def receive_bytes(self) -> bytes:
        """Wait for a binary message. Otherwise like `receive_text`."""
        return cast("bytes", await self._take("bytes"))

    async def receive_json(self, mode: str = "text") -> Any:
        """Wait for a JSON document, in a ``"text"`` or ``"binary"`` message; see `receive_text`."""
        if mode not in {"text", "binary"}:
            raise RuntimeError(f"mode must be 'text' or 'binary', got {mode!r}")
        return json.loads(await self._take("text" if mode == "text" else "bytes"))

    def iter_text(self) -> AsyncIterator[str]:
        """Receive text messages until the connection is closed."""
        return _Messages(self.receive_text)

    def iter_bytes(self) -> AsyncIterator[bytes]:
        """Receive binary messages until the connection is closed."""
        return _Messages(self.receive_bytes)

    def iter_json(self) -> AsyncIterator[Any]:
        """Receive JSON documents until the connection is closed."""
        return _Messages(self.receive_json)

    # --- Sending

    async def send(self, message: Message) -> None:
        """Send an ASGI message.

        Raises:
            CancelationError: If the operation is cancelled, or the message could not be sent in time.
        """
        self._check_block()
        if not self._has_left:
            try:
                await call(self._cancelable, self._deliver, message)
            except DisconnectCancelation:
                if not self._has_left:
                    raise  # somebody has declared it
        if self._has_left:
            self._client_left()
            if self._cancelable.status is OperationStatus.PENDING:
                self._cancelable.check()
            await checkpoint()

    async def close(self, code: int = 1000, reason: str | None = "") -> None:
        """Close the connection, even if the operation is cancelled. Quiet if it is closed already.

        Args:
            code: The close code (RFC 6455, 7.4).
            reason: For humans; cut to 123 bytes.
        """
        await self._close(code, close_reason(reason or ""), ())

    async def _close(self, code: int, reason: str, denial: Sequence[Message]) -> None:
        """Close the connection; or deny it, which is a response in place of the close frame."""
        if self._has_left or self.application_state in _NOT_CLOSABLE:
            return
        self._closed = {"code": code, "reason": reason}
        budget = 0 if self._is_stalled else self._close_timeout
        with anyio.move_on_after(budget, shield=True), suppress(WebSocketDisconnect, OSError):
            messages = denial or ({"type": "websocket.close", "code": code, "reason": reason},)
            for message in messages:
                await self._websocket.send(message)

    # --- The block

    async def __aenter__(self) -> Self:
        if self._block is not None:
            raise LifecycleError(f"{self!r} was entered already; make a new one for each block")
        operation = self._cancelable
        self._block = operation if operation.status is OperationStatus.PENDING else _part_of(operation)
        sources = list(self._sources())
        if sources:
            self._watch = Watch([(source, self._cancel) for source in sources], self._cancel)
            await self._watch.open()
        try:
            await self._block.__aenter__()
        except BaseException as error:
            left = await self._end_watch(error)
            self._let_go()
            assert left is not None
            raise_again(left)
        try:
            self._listen()
            if self._watch is not None:
                await self._watch.start()
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:  # not bool: to type checkers that would mean that blocks may be left quietly
        assert self._block is not None
        left = await self._leave_block(self._block, exc)
        left = await self._say_goodbye(self._last_words(self._block, left), left)
        left = await self._end_watch(left)
        self._let_go()
        if left is not None and left is not exc:
            raise_again(left)
        return left is None and exc is not None

    def _sources(self) -> Iterator[Source]:
        """What is waited for while the block runs; a reader first, if there is none yet."""
        if self._reader is None:
            owner = ReadAhead(self._read_ahead, self._client_left)
            reader = Reader(self._websocket._receive, owner)
            self._reader = self._own_reader = self.scope[READER_KEY] = reader
            self._websocket._receive = reader.receive
            self._websocket._send = LastWords(reader, self._websocket._send)
            yield Reading(reader, owner.scope)
        if self._idle_timeout is not None:
            yield Silence(self._reader, self._idle_timeout)
        if self._keepalive is not None:
            yield Keepalive(self._keepalive, lambda: self._sent_at, self._send_keepalive)

    def _listen(self) -> None:
        """What ends the request ends the operation, whether it was tied to it or not."""
        assert self._reader is not None
        self._is_listening = True
        self._reader.listeners += 1  # the middleware need not interrupt the handler
        token = self.scope.get(TOKEN_KEY)
        if isinstance(token, CancelationToken):
            self._remove_callback = token.add_callback(self._cancel)

    async def _leave_block(self, block: Cancelable, exc: BaseException | None) -> BaseException | None:
        """Leave the operation. Returns the exception that goes on."""
        try:
            if exc is None:
                await block.__aexit__(None, None, None)
                return None
            exc = in_own_words(block, exc)
            caught = await block.__aexit__(type(exc), exc, exc.__traceback__)
        except BaseException as error:
            return error
        return None if caught else exc

    def _last_words(self, block: Cancelable, left: BaseException | None) -> tuple[Message, ...]:
        """What to close the connection with, and to deny it with; nothing if that is for others to say."""
        cause = cause_of(self._cancelable, block, left)
        if cause is not None:
            return last_words(self._websocket, cause, self._close_codes)
        return ({"code": 1000, "reason": ""},) if left is None else ()

    async def _say_goodbye(
        self, messages: tuple[Message, ...], left: BaseException | None
    ) -> BaseException | None:
        """Close the connection. Returns the exception that goes on: *left*, or what has come instead."""
        if messages:
            close, *denial = messages
            try:
                await self._close(close["code"], close["reason"], denial)
            except Exception as error:  # of the server; what ended the block is more important
                if left is None:
                    return error
                report([error])
            except BaseException as error:  # an interruption of the task, which no scope can stop
                return error
        return left

    async def _end_watch(self, left: BaseException | None) -> BaseException | None:
        """End the sources. If one of them has failed, and nothing else is wrong, its error goes on."""
        watch, self._watch = self._watch, None
        if watch is None:
            return left
        left = await watch.close(left)
        failures = watch.failures
        if failures and (left is None or cancelation_in(left) is self._cancelable.cancelation):
            left = failures.pop(0)
        report(failures)
        return left

    def _let_go(self) -> None:
        """Take away all that was registered. What the client sent before it left can still be received."""
        if self._remove_callback is not None:
            self._remove_callback()
        if self._is_listening and self._reader is not None:
            self._reader.listeners -= 1
        reader = self._own_reader
        if reader is not None:
            self.scope[READER_KEY] = None
            has_news = reader.disconnect is not None
            if not has_news or self._is_closed_here:
                reader.close({"type": "websocket.disconnect", "code": NO_CODE})
            if not has_news:
                self._reader = None

    # --- What its calls are made of

    def _check_block(self) -> None:
        if self._block is None and not (self._idle_timeout is None and self._keepalive is None):
            raise LifecycleError(
                "idle_timeout and keepalive need a block: async with CancelableWebSocket(...) as socket"
            )

    @property
    def _is_closed_here(self) -> bool:
        if self._closed is not None:
            return True
        return self.application_state is WebSocketState.DISCONNECTED and not self._is_lost

    @property
    def _has_left(self) -> bool:
        """Whether the client has left, rather than was closed to."""
        news = self._is_lost or self._farewell or (self._reader is not None and self._reader.disconnect)
        return bool(news) and not self._is_closed_here

    @property
    def _closing(self) -> Message | None:
        if self._closed is not None:
            return self._closed
        if self._farewell is None and self._reader is not None and self._reader.disconnect is not None:
            return farewell(self._reader.disconnect)
        return self._farewell

    def _cancel(self, cancelation: Cancelation) -> None:
        self._cancelable._settle(cancelation)

    def _client_left(self) -> None:
        exchange = self.scope.get(EXCHANGE_KEY)
        goes_on = exchange is not None and exchange.goes_on  # after commit(), or by its policy
        if not self._is_closed_here and not goes_on:
            self._cancel(Cancelation(CancelationReason.DISCONNECT))

    async def _take(self, kind: str) -> str | bytes:
        if self._closed is not None:
            await checkpoint()
            raise WebSocketDisconnect(self._closed["code"], self._closed["reason"])
        if self.application_state is WebSocketState.CONNECTING and not self._has_left:
            raise RuntimeError("the WebSocket is not connected: call accept() first")
        message = await self.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"], message.get("reason"))
        data: str | bytes | None = message.get(kind)
        if data is None:
            raise WebSocketException(WRONG_KIND, f"expected a message of {kind}")
        return data

    async def _next_message(self) -> Message:
        if not self._has_left:
            try:
                return await call(self._cancelable, self._websocket.receive)
            except DisconnectCancelation:
                if not self._has_left:
                    raise  # somebody has declared it
        # What came before the client left, and then the news: both are there, or will be in a moment.
        with anyio.move_on_after(_MOMENT):
            return await self._websocket.receive()
        return {"type": "websocket.disconnect"}

    def _note_farewell(self, message: Message) -> None:
        self._farewell = farewell(message)
        self._client_left()

    async def _deliver(self, message: Message) -> None:
        await checkpoint()  # no server's send() need be one: who does nothing else must not stop all others
        if self._send_timeout == inf:
            await self._pass_on(message)
            return
        with anyio.move_on_after(self._send_timeout) as patience:
            await self._pass_on(message)
        if patience.cancel_called:  # caught or not: Hypercorn's Trio worker lets nobody interrupt it
            self._is_stalled = True
            text = f"the client took no message for {self._send_timeout:g} seconds"
            self._cancelable.cancel(CancelationReason.TIMEOUT, text)
            self._cancelable.check()

    async def _pass_on(self, message: Message) -> None:
        try:
            await self._websocket.send(message)
        except (OSError, WebSocketDisconnect):  # ASGI 2.4; Starlette makes one of the other
            self._is_lost = True
        except RuntimeError:  # some servers, once they have told the reader
            if not self._has_left:
                raise
        self._sent_at = anyio.current_time()

    async def _send_keepalive(self) -> None:
        if self.application_state is WebSocketState.CONNECTED:
            kind = "text" if isinstance(self._keepalive_message, str) else "bytes"
            await self.send({"type": "websocket.send", kind: self._keepalive_message})


_NOT_CLOSABLE = frozenset({WebSocketState.DISCONNECTED, WebSocketState.RESPONSE})

_MOMENT = 1.0  # seconds


class _Messages(Generic[T]):
    """What `CancelableWebSocket.iter_text` and its like return. Not a generator: nobody need close it."""

    __slots__ = ("_receive",)

    def __init__(self, receive: Callable[[], Awaitable[T]]) -> None:
        self._receive = receive

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        try:
            return await self._receive()
        except WebSocketDisconnect:
            raise StopAsyncIteration from None


def _reader_of(websocket: WebSocket) -> Reader | None:
    """The reader that there is already: the middleware's, or that of a block around."""
    exchange = websocket.scope.get(EXCHANGE_KEY)
    reader: Reader | None = websocket.scope.get(READER_KEY) if exchange is None else exchange.reader
    return reader


def _part_of(operation: Cancelable) -> Cancelable:
    """Make a block for an operation that was entered already."""
    operation.check()
    if operation.status.is_final:
        raise LifecycleError(f"an operation that is {operation.status} takes up no more work")
    return Cancelable(
        timeout=operation.remaining(),
        tokens=(operation.token,),
        name=operation.name,
        raise_on_cancel=operation._raise_on_cancel,
    )


def _or_infinite(limit: float | None) -> float:
    return inf if limit is None else limit


def _positive(limit: float | timedelta | None, name: str) -> float | None:
    value = seconds(limit, name)
    if value == 0:
        raise ValueError(f"{name} must be positive, got {limit!r}")
    return value


def _sendable(message: str | bytes) -> str | bytes:
    if not isinstance(message, (str, bytes)):
        raise TypeError(f"keepalive_message must be text or bytes, got {message!r}")
    return message
