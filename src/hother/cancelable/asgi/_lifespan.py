"""The application's lifespan passes through us: between start and stop we listen for the server's end.

Nothing of what the application does there changes, least of all what it raises: that is how one says
that it has no lifespan.
"""

from __future__ import annotations

import logging
import signal
import threading
from contextlib import ExitStack

from ..sources._signal import overhear
from ._crowd import keep_time
from ._helpers import Helpers
from ._loops import has_timers, this_loop
from ._shutdown import Shutdown, in_lifespan
from ._types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("hother.cancelable")

SIGNALS = ("SIGINT", "SIGTERM", "SIGQUIT", "SIGBREAK")
"""What servers take for the order to stop, on one platform or another."""


SHUTDOWN_KEY = "cancelation_shutdown"
"""Where the shutdown that the outermost middleware hears of is in the lifespan's scope."""


class Lifespan:
    """One lifespan of an application.

    Args:
        receive: The server's.
        send: The server's.
        shutdown: Who is to be told.
        patience: How long requests that are in flight at the end are waited for, in seconds.
    """

    def __init__(self, receive: Receive, send: Send, shutdown: Shutdown, *, patience: float) -> None:
        self._receive = receive
        self._send = send
        self._shutdown = shutdown
        self._patience = patience
        self._signals = ExitStack()

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Call *app*."""
        self._shutdown.start()
        outer = in_lifespan.get()
        in_lifespan.set(scope.setdefault(SHUTDOWN_KEY, self._shutdown))
        try:
            await app(scope, self._receive_or_stop, self._send_or_start)
        finally:
            in_lifespan.set(outer)
            if scope.get(SHUTDOWN_KEY) is self._shutdown:
                del scope[SHUTDOWN_KEY]
            self._signals.close()
            self._shutdown.end()

    async def _receive_or_stop(self) -> Message:
        message = await self._receive_beside()
        if message["type"] == "lifespan.shutdown":
            self._shutdown.begin()
            # What requests need for their clean-up is still there: the application has not heard yet.
            await self._shutdown.drain(self._patience)
            self._signals.close()
        return message

    async def _receive_beside(self) -> Message:
        """Receive, and have helpers meanwhile.

        An application spends its life waiting here. They are not around the application: once that has
        ended, nothing may take time any more, since a server may cancel what has not ended then. On asyncio,
        none is started before a server is to be asked, so that there is nothing to wait for.
        """
        loop = this_loop()
        async with Helpers(loop) as helpers:
            if not has_timers(loop.token):
                helpers.start(keep_time)
            self._shutdown.helpers = helpers
            try:
                return await self._receive()
            finally:
                self._shutdown.helpers = None

    async def _send_or_start(self, message: Message) -> None:
        if message["type"] == "lifespan.startup.complete":
            self._listen()
        await self._send(message)

    def _listen(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            logger.info(
                "the application does not run in the main thread: signals do not reach it there, "
                "call begin_shutdown() to let requests end before the server does"
            )
            return
        for name in SIGNALS:
            if (number := getattr(signal, name, None)) is not None:
                self._signals.callback(overhear(number, self._signalled))

    def _signalled(self, number: int) -> None:
        self._shutdown.begin(by=signal.Signals(number).name)
