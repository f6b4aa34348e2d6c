"""What a handler may ask of its own request: not to be stopped any more, and to clean up in any case."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from anyio import from_thread
from anyio.lowlevel import current_token

from .._core._timeouts import seconds
from .._core._token import CancelationToken
from ._current import current_exchange
from ._policy import RequestPolicy
from ._shutdown import in_lifespan


def commit(*, timeout: float | timedelta = 30.0) -> None:
    """Pass the point of no return: from here on the current request runs to its end.

    Neither the client's leaving nor the request's timeout nor the server's shutdown ends it: the token is
    not cancelled for them, and the handler is not stopped. What happened meanwhile takes effect when
    *timeout* is over, if the request is not.

    Either this raises, and nothing need be undone; or it returns, and the handler goes on. It is no
    checkpoint: nothing can come between it and the next line.

    Whoever cancels the token by hand still stops the request, and the timeouts of operations go on. A
    server that cancels the task itself, or whose process is killed, cannot be held up: gunicorn does so 3
    seconds after a client has left, unless it is told otherwise.

    Outside of a request there is nothing to put off, and nothing happens. Works in the request's tasks,
    and in worker threads of AnyIO (``def`` endpoints).

    Args:
        timeout: How long the request may still take, in seconds.

    Raises:
        CancelationError: If the request was stopped already.
        TypeError: If *timeout* is not a number.
        ValueError: If *timeout* is negative, NaN or infinite.
    """
    limit = seconds(timeout)
    if limit is None:
        raise ValueError("a commitment needs a finite timeout: nothing else would end a handler that hangs")
    exchange = current_exchange()
    if exchange is not None:
        _in_its_loop(lambda: exchange.course.commit(limit))


def apply_policy(policy: RequestPolicy) -> None:
    """Have *policy* hold for the current request from now on, whatever its route and application state.

    So a handler can extend its own timeout, or end it: the limit counts from the request's start. What
    *policy* does not state stays as it is. Outside of a request nothing happens. Works in the request's
    tasks, and in worker threads of AnyIO.

    Raises:
        TypeError: If *policy* is something else.
    """
    if not isinstance(policy, RequestPolicy):
        raise TypeError(f"apply_policy() takes a RequestPolicy, got {policy!r}")
    exchange = current_exchange()
    if exchange is not None:
        _in_its_loop(lambda: exchange.course.apply(policy))


def clean_up_with(task: Callable[[], Awaitable[None]]) -> bool:
    """Have *task* called and awaited once the current request is over, shielded, and for 10 seconds at most.

    Returns:
        Whether there is a request.
    """
    exchange = current_exchange()
    if exchange is None:
        return False
    exchange.course.clean_up_with(task)
    return True


def current_shutdown_token() -> CancelationToken | None:
    """Return the token that is cancelled when the server begins to stop, or ``None``. Never blocks.

    Known in requests behind `RequestCancelationMiddleware`, and in the lifespan of its application, the
    tasks that are started there included.
    """
    exchange = current_exchange()
    shutdown = in_lifespan.get() if exchange is None else exchange.outermost._shutdown
    return None if shutdown is None else shutdown.token


def _in_its_loop(action: Callable[[], None]) -> None:
    try:
        current_token()
    except RuntimeError:  # no event loop in this thread: it is one of AnyIO's workers
        from_thread.run_sync(action)
    else:
        action()
