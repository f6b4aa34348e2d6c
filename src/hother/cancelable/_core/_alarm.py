"""Cancel a token after some time.

The event loop has a timer, which knows the token by a weak reference. The timer goes when it rings, when
the token is cancelled otherwise, when nobody holds the token any more, and with the loop.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from anyio import current_time
from anyio.lowlevel import current_token

from ._observers import report
from ._reasons import Cancelation, CancelationReason
from ._timeouts import seconds
from ._wakeup import call_at, run_in

if TYPE_CHECKING:
    from datetime import timedelta

    from ._token import CancelationToken


def cancel_after(
    token: CancelationToken,
    timeout: float | timedelta,
    reason: CancelationReason,
    message: str | None,
    by: str | None,
) -> Callable[[], None]:
    """See `CancelationToken.cancel_after`."""
    delay = seconds(timeout)
    current_token()  # fails where no event loop runs
    if delay is None:
        return _nothing
    if message is None and reason is CancelationReason.TIMEOUT:
        message = f"timed out after {delay:g} seconds"
    return _Alarm(token, delay, reason, message, by).stop


class _Alarm:
    def __init__(
        self,
        token: CancelationToken,
        delay: float,
        reason: CancelationReason,
        message: str | None,
        by: str | None,
    ) -> None:
        self._loop = current_token()
        self._token = weakref.ref(token, self.stop)
        self._record = reason, message, by
        self._take_back = call_at(self._loop, current_time() + delay, self._ring)
        # What `add_callback` returns would keep the token alive.
        token._callbacks[self] = self.stop
        if token.is_cancelled:
            self.stop()

    def stop(self, _: object = None) -> None:
        """Take the timer away. Safe in any thread, and wherever a weak reference may call it."""
        token = self._token()
        if token is not None:
            token._remove_callback(self)
        run_in(self._loop, self._take_back)

    def _ring(self) -> None:
        token = self._token()
        if token is None:
            return
        token._remove_callback(self)
        reason, message, by = self._record
        try:
            token.cancel_with(Cancelation(reason, message, by))
        except Exception as error:  # nobody called who could be told
            report([error])


def _nothing() -> None: ...
