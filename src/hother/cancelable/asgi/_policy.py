"""Policies: what a request does when its client leaves, when the server stops, and how long it may take.

An application states its policy in the options of the middleware, a route in a mark on its endpoint.
Nobody looks for a statement before something has happened that it is needed for: requests that end at
once pay nothing for policies.

The innermost statement wins, for each field by itself: what was applied to this very request, then the
mark on the routed endpoint, then the middlewares, from the innermost to the outermost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from functools import partial
from inspect import isroutine
from math import inf
from typing import Any, Literal, TypeAlias, TypeVar, cast, final, get_args

from .._core._timeouts import seconds

Marked = TypeVar("Marked", bound=Callable[..., Any])

MARK = "__cancelation_policy__"
"""The attribute of an endpoint that its policy is in."""


@final
@dataclass(frozen=True, slots=True)
class Grace:
    """Tell a handler now, and stop it later: its token is cancelled at once, the handler after a while.

    Args:
        seconds: How long the handler may go on once its token is cancelled, in seconds.
        delay: How long the request goes on as if nothing had happened before that, in seconds.

    Raises:
        TypeError: If a number is not a number.
        ValueError: If one is negative, NaN or infinite.
    """

    seconds: float
    delay: float = 0.0

    def __post_init__(self) -> None:
        for name in ("seconds", "delay"):
            value = seconds(getattr(self, name), name)
            if value is None:
                raise ValueError(
                    f"{name} must be a finite number of seconds; for ever is 'ignore' or 'finish'"
                )
            object.__setattr__(self, name, value)

    @property
    def total(self) -> float:
        """How long it takes until the handler is stopped, in seconds."""
        return self.delay + self.seconds


Word: TypeAlias = Literal["cancel", "ignore", "finish"]
OnDisconnect: TypeAlias = Word | Grace
"""What becomes of a handler whose client has left: ``"cancel"``, ``"ignore"``, ``"finish"`` or a `Grace`."""

OnShutdown: TypeAlias = OnDisconnect
"""What becomes of a handler when the server begins to stop; the choices are the same."""


def check_reaction(value: object, name: str) -> None:
    """Complain unless *value* is one of the choices of `OnDisconnect`.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(value, Grace) and value not in get_args(Word):
        raise ValueError(f"{name} must be 'cancel', 'ignore', 'finish' or a Grace(seconds), got {value!r}")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPolicy:
    """What a route decides for itself. Decorates endpoints; one object may serve many.

    ::

        @app.get("/report")
        @RequestPolicy(timeout=300, on_disconnect="finish")
        async def report(): ...

    The endpoint is marked, not wrapped: it stays the function that it was. What a policy does not state
    stays as the application's middleware has it.

    Args:
        timeout: How long the request may take, in seconds from its start, in place of the middleware's
            limit, be it longer or shorter; ``None`` for no limit.
        on_disconnect: What becomes of the handler when its client leaves.
        on_shutdown: What becomes of it when the server begins to stop.

    Raises:
        TypeError: If *timeout* is not a number.
        ValueError: If *timeout* is negative or NaN, or a choice is unknown.
    """

    timeout: float | timedelta | Literal["inherit"] | None = "inherit"
    on_disconnect: OnDisconnect | None = None
    on_shutdown: OnShutdown | None = None

    def __post_init__(self) -> None:
        if self.timeout != "inherit":
            object.__setattr__(self, "timeout", seconds(self.timeout))
        for name in ("on_disconnect", "on_shutdown"):
            if (value := getattr(self, name)) is not None:
                check_reaction(value, name)

    @property
    def limit(self) -> float | None:
        """The timeout in seconds; ``None`` for no limit, or if there is no statement about it."""
        return None if self.timeout == "inherit" else seconds(self.timeout)

    def over(self, outer: RequestPolicy | None) -> RequestPolicy:
        """Return this policy, with what it does not state taken from *outer*."""
        if outer is None:
            return self
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(
            outer,
            **{each.name: values[each.name] for each in fields(self) if values[each.name] != each.default},
        )

    def __call__(self, endpoint: Marked) -> Marked:
        """Mark *endpoint*, and return it. A mark that is there already is the inner one: it wins.

        Raises:
            TypeError: If it cannot be called, or has no room for a mark.
        """
        if not callable(endpoint):
            raise TypeError(f"a RequestPolicy decorates endpoints, got {endpoint!r}")
        _note_timeout(self.limit)
        mark = getattr(endpoint, MARK, None)
        try:
            setattr(endpoint, MARK, self if mark is None else mark.over(self))
        except AttributeError:
            raise TypeError(f"{endpoint!r} cannot be marked: mark the function that it calls") from None
        return endpoint


DEFAULT_GRACE = Grace(2.0)
"""How long requests may take when the server stops. Hypercorn gives up after 3 seconds."""

DEFAULTS = RequestPolicy(timeout=None, on_disconnect="cancel", on_shutdown=DEFAULT_GRACE)
"""What holds where nobody has stated anything."""


def policy_on(endpoint: object, method: str) -> RequestPolicy | None:
    """Return the policy that *endpoint* is marked with.

    An endpoint that is a class may have a mark, and each of its methods one of its own; one that is an object
    may have its mark where it is called.
    """
    name = method.lower()
    if name == "head" and not hasattr(endpoint, name):  # Starlette calls the other one
        name = "get"
    stated = cast("RequestPolicy | None", getattr(endpoint, MARK, None))
    for inner in (name, "__call__"):
        mark = cast("RequestPolicy | None", getattr(getattr(endpoint, inner, None), MARK, None))
        stated = stated if mark is None else mark.over(stated)
    return stated


def policy_of(scope: Mapping[str, Any]) -> RequestPolicy | None:
    """Return the policy of the endpoint that a request was routed to, if it was, and has one."""
    endpoint, stated = scope.get("endpoint"), None
    while endpoint is not None:
        mark = policy_on(endpoint, scope.get("method", ""))
        stated = stated if mark is None else mark.over(stated)
        endpoint = endpoint.func if isinstance(endpoint, partial) else None
    return stated


def is_routed(scope: Mapping[str, Any]) -> bool:
    """Whether a request has got to its endpoint, rather than to an application with a router of its own.

    That one is an object, and stands in the same place until its router has found the endpoint.
    """
    endpoint = scope.get("endpoint")
    return isroutine(endpoint) or isinstance(endpoint, (type, partial))


def shortest_timeout() -> float:
    """Return the shortest timeout that any policy of this process has stated, in seconds.

    A request is routed after it has begun, and its route may have a shorter limit than the application.
    So requests that take this long look whether their time is up.
    """
    return _shortest[0]


_shortest = [inf]


def _note_timeout(limit: float | None) -> None:
    if limit is not None:
        _shortest[0] = min(_shortest[0], limit)
