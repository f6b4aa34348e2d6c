"""For how long a stream is read on for a client who has left.

By then its operation is cancelled, and cannot be again. So what else would have ended it, were its client
still there, is looked after here: the time limits, and the server's end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from math import inf

from anyio import CancelScope, current_time
from anyio.lowlevel import current_token

from .._core._reasons import Cancelation
from .._core._wakeup import run_in
from .._scope import Cancelable
from ..asgi import Grace
from ..asgi._exchange import Exchange


async def wait_with_patience(
    wait: Callable[[], Awaitable[object]], limit: float, operation: Cancelable, exchange: Exchange | None
) -> None:
    """Wait for something, until *limit* or anything else ends *operation* or its request.

    Args:
        wait: What waits.
        limit: How long to wait at most, in seconds.
        operation: The stream's, whose deadline holds on.
        exchange: The request's, if there is a middleware.
    """
    with CancelScope(deadline=min(current_time() + limit, operation.deadline)) as scope:
        if exchange is None:
            await wait()
            return
        scope.deadline = min(scope.deadline, _end_of(exchange))
        shorten = partial(run_in, current_token(), _shorten, scope, exchange)
        remove_callback = exchange.outermost._shutdown.token.add_callback(shorten)
        try:
            await wait()
        finally:
            remove_callback()


def _end_of(exchange: Exchange) -> float:
    """When the time of the request is up."""
    limit = exchange.course.policy.limit
    return inf if limit is None else exchange.outermost.began + limit


def _shorten(scope: CancelScope, exchange: Exchange, _: Cancelation) -> None:
    """The server begins to stop: runs in the loop, perhaps when the draining is over already."""
    reaction = exchange.course.policy.on_shutdown
    if reaction != "finish":
        delay = reaction.delay if isinstance(reaction, Grace) else 0.0
        scope.deadline = min(scope.deadline, current_time() + delay)
