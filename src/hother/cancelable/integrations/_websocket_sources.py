"""What may end a WebSocket besides its handler: a reader that fails, a silent peer; and what keeps it open.

Each is a source (see `hother.cancelable.sources.Source`), waited for while the WebSocket's block runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NoReturn, final

import anyio

from .._core._errors import CancelationError
from .._core._reasons import Cancelation, CancelationReason
from ..asgi._outcome import own_farewell
from ..asgi._receive import Reader
from ..asgi._types import Message, Send


@final
class ReadAhead:
    """Whom the reader of a WebSocket's own block works for. `Reading` runs it, from beginning to end.

    Made in an event loop.
    """

    __slots__ = ("_on_disconnect", "read_ahead", "scope")

    reads_on_demand = False
    withholds_disconnect = False
    can_step = False

    def __init__(self, read_ahead: int, on_disconnect: Callable[[], None]) -> None:
        self.read_ahead = read_ahead
        self.scope = anyio.CancelScope()  #: in which it is read
        self._on_disconnect = on_disconnect

    def start_reading(self) -> None:
        """It is read already."""

    def stop_reading(self) -> None:
        """Interrupt the reader."""
        self.scope.cancel()

    def hung_up(self) -> None:
        """Tell the WebSocket. Called once."""
        tell = self._on_disconnect
        del self._on_disconnect  # a circle less
        tell()


class Reading:
    """Reads ahead where no middleware does. That the client has left, the reader tells by itself."""

    def __init__(self, reader: Reader, scope: anyio.CancelScope) -> None:
        self._reader = reader
        self._scope = scope

    def __repr__(self) -> str:
        return "reader"

    async def wait(self) -> Cancelation:
        """Read until the client has left; and wait on, unless it is the server that failed."""
        with self._scope:
            await self._reader.run()
        if self._reader.failure is None:
            await anyio.sleep_forever()
        return Cancelation(CancelationReason.ERROR, f"receiving failed: {self._reader.failure!r}")


@final
class LastWords:
    """A WebSocket's ``send`` that has the reader end before the connection is closed."""

    __slots__ = ("_reader", "_send")

    def __init__(self, reader: Reader, send: Send) -> None:
        self._reader = reader
        self._send = send

    async def __call__(self, message: Message) -> None:
        """Send *message*, unless the client leaves just then."""
        has_left = False
        if message["type"] == "websocket.close":
            with anyio.move_on_after(_END_OF_READING, shield=True):
                has_left = await self._reader.end(own_farewell(message))
        if not has_left:
            await self._send(message)


_END_OF_READING = 1.0  # seconds: far more than it takes


class Silence:
    """Cancels when nothing has come from the client for *limit* seconds."""

    def __init__(self, reader: Reader, limit: float) -> None:
        self._reader = reader
        self._limit = limit

    def __repr__(self) -> str:
        return f"idle_timeout={self._limit:g}"

    async def wait(self) -> Cancelation:
        """Wait until the client has been silent for too long."""
        while await self._something_arrives():
            pass
        message = f"the client sent nothing for {self._limit:g} seconds"
        return Cancelation(CancelationReason.TIMEOUT, message)

    async def _something_arrives(self) -> bool:
        await self._reader.room()  # a full reader hears nothing: there the handler is the slow one
        with anyio.move_on_after(self._limit) as patience:
            await self._reader.arrival()
        return not patience.cancelled_caught


class Keepalive:
    """Sends something whenever nothing else was sent for *interval* seconds; never cancels by itself.

    Args:
        interval: In seconds.
        last_sent: When something was sent last, on the event loop's clock.
        send: Sends something.
    """

    def __init__(
        self, interval: float, last_sent: Callable[[], float], send: Callable[[], Awaitable[None]]
    ) -> None:
        self._interval = interval
        self._last_sent = last_sent
        self._send = send

    def __repr__(self) -> str:
        return f"keepalive={self._interval:g}"

    async def wait(self) -> Cancelation:
        """Send until the operation is cancelled."""
        try:
            await self._send_on()
        except CancelationError as error:
            return error.cancelation

    async def _send_on(self) -> NoReturn:
        due = anyio.current_time() + self._interval
        while True:
            await anyio.sleep_until(due)
            now = anyio.current_time()
            due = self._last_sent() + self._interval
            if due <= now:
                await self._send()
                due = now + self._interval
