"""FastAPI: the middleware, the dependency, and endpoints, streams and WebSockets that can be cancelled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeAlias, TypeVar, cast, overload

from fastapi import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response

from .._core._timeouts import seconds
from .._scope import Cancelable
from ..asgi import Grace, RequestPolicy, apply_policy, begin_shutdown, commit
from ..asgi._policy import policy_of
from ._clean_up import CleanupTask
from ._drain import Drain
from ._endpoints import decorator
from ._last_event_id import LastEventId
from ._requests import exchange_of, get_request_token, get_shutdown_token
from ._resume import ResumableEvents
from ._sse import ServerSentEvent, get_last_event_id
from ._streaming import cancelable_sse_response, cancelable_streaming_response
from ._websocket import CancelableWebSocket
from .starlette import RequestCancelationMiddleware

__all__ = (
    "CancelableDependency",
    "CancelableWebSocket",
    "CleanupTask",
    "Drain",
    "Grace",
    "LastEventId",
    "RequestCancelationMiddleware",
    "RequestPolicy",
    "ResumableEvents",
    "ServerSentEvent",
    "apply_policy",
    "begin_shutdown",
    "cancelable_dependency",
    "cancelable_sse_response",
    "cancelable_streaming_response",
    "commit",
    "get_last_event_id",
    "get_request_token",
    "get_shutdown_token",
    "policy_dependency",
    "with_cancelation",
)

P = ParamSpec("P")
T = TypeVar("T")


class CancelableDependency(Protocol):
    """What `cancelable_dependency` is: an async function for FastAPI to call, with one method."""

    __name__: str

    def __call__(self, request: HTTPConnection, timeout: float | None = None) -> Awaitable[Cancelable]:
        """Make an operation that is cancelled with the request or WebSocket, for the endpoint to enter."""
        ...

    def with_options(
        self, *, timeout: float | timedelta | None = None, raise_on_cancel: bool = True
    ) -> CancelableDependency:
        """Make a dependency of its own: ``Depends(cancelable_dependency.with_options(timeout=30))``.

        Args:
            timeout: How long the operation's block may take, in seconds.
            raise_on_cancel: False: leave the block quietly when cancelled.

        Raises:
            TypeError: If *timeout* is not a number.
            ValueError: If *timeout* is negative or NaN.
        """
        ...


if TYPE_CHECKING:
    _NotFromTheClient: TypeAlias = float | None
else:

    class _NotFromTheClient(Response):
        """What FastAPI reads of the parameter ``timeout``, which it would else take from the query string.

        Of this type it passes its own response, which says nothing of the time, and takes nothing from the
        client, not even where a path has a ``{timeout}``. A dependency of a dependency would keep the client
        out as well, and cost each request as much as the operation does.
        """


def _make_dependency(
    *, timeout: float | timedelta | None = None, raise_on_cancel: bool = True
) -> CancelableDependency:
    limit = seconds(timeout)

    async def cancelable_dependency(request: HTTPConnection, timeout: _NotFromTheClient = None) -> Cancelable:
        """Make an operation that is cancelled with the request or WebSocket, for the endpoint to enter.

        ``cancel: Cancelable = Depends(cancelable_dependency)``, then ``async with cancel:``. FastAPI
        calls a dependency once per request: parts of one request share the operation, which serves one
        block, unless they ask for ``use_cache=False``. Not a checkpoint.

        Args:
            request: The request, or the WebSocket.
            timeout: How long the operation's block may take, in seconds, if this is called by hand.
                Clients cannot set it; to configure the dependency, see ``with_options``.
        """
        is_given = timeout is not None and not isinstance(timeout, Response)
        return Cancelable(
            timeout=timeout if is_given else limit,
            tokens=(get_request_token(request),),
            name=request.scope.get("path"),
            raise_on_cancel=raise_on_cancel,
        )

    dependency = cast("CancelableDependency", cancelable_dependency)
    setattr(dependency, "with_options", _make_dependency)  # noqa: B010 (a function has no such attribute)
    return dependency


cancelable_dependency: CancelableDependency = _make_dependency()


def policy_dependency(policy: RequestPolicy) -> Callable[[HTTPConnection], Awaitable[None]]:
    """Make a dependency that states *policy*, for all routes of a router.

    ``APIRouter(dependencies=[Depends(policy_dependency(RequestPolicy(timeout=300)))])``. What a route's
    endpoint is marked with wins, and of several dependencies the one that runs last.

    Raises:
        TypeError: If *policy* is something else.
    """
    if not isinstance(policy, RequestPolicy):
        raise TypeError(f"policy_dependency() takes a RequestPolicy, got {policy!r}")

    async def state_policy(request: HTTPConnection) -> None:
        exchange = exchange_of(request)
        if exchange is not None:
            mark = policy_of(request.scope)
            exchange.course.apply(policy if mark is None else mark.over(policy))

    return state_policy


@overload
def with_cancelation(timeout: Callable[P, Awaitable[T]], /) -> Callable[P, Awaitable[T]]: ...
@overload
def with_cancelation(timeout: Callable[P, T], /) -> Callable[P, Awaitable[T]]: ...
@overload
def with_cancelation(
    timeout: float | None = None, raise_on_cancel: bool = True
) -> Callable[[Callable[P, Any]], Callable[P, Awaitable[Any]]]: ...
def with_cancelation(timeout: Any = None, raise_on_cancel: bool = True) -> Any:
    """Make an endpoint's body a cancelable operation, tied to the request's token.

    `current_operation` returns the operation inside. Works with and without parentheses, for ``async
    def`` and ``def`` endpoints, with or without a ``request`` parameter; the endpoint's signature
    stays as it is. A ``def`` endpoint runs in a worker thread, which nothing can interrupt: let it
    call ``current_operation().check()`` now and then.

    Args:
        timeout: How long the endpoint may take, in seconds.
        raise_on_cancel: Whether a cancelation becomes an ``HTTPException`` with the outcome's status
            (504 for a timeout), or a ``WebSocketException``. Otherwise the `CancelationError` itself
            leaves the endpoint, and the middleware answers it.

    Raises:
        TypeError: If what is decorated is a generator, or *timeout* is not a number.
        ValueError: If *timeout* is negative or NaN.
    """
    return decorator(timeout, HTTPException if raise_on_cancel else None)
