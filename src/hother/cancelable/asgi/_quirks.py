"""What can be told from the outside about who calls us, and how it behaves; each with its reason."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from inspect import iscoroutinefunction
from types import FunctionType, MethodType
from typing import Any

from ._types import Receive, Scope, Send

STARLETTE_COULD_NOT_ANSWER = "Caught handled exception, but response already started."
"""What Starlette raises from an error that it has a handler for, once it is too late to answer."""


def expects_continue(scope: Scope) -> bool:
    """Whether the client sends its body only when asked (RFC 9110, 10.1.1): servers ask as we read."""
    return any(
        name.lower() == b"expect" and value.lower() == b"100-continue"
        for name, value in scope.get("headers", ())
    )


def has_body(scope: Scope) -> bool:
    """Whether the request comes with a body, as far as its head tells (RFC 9112, 6.3; RFC 9113, 8.1)."""
    headers = {name.lower(): value for name, value in scope.get("headers", ())}
    length = headers.get(b"content-length")
    if length is not None:
        return bool(length != b"0")
    if scope.get("http_version", "1.1").startswith("1"):
        return b"transfer-encoding" in headers
    return scope.get("method") in {"POST", "PUT", "PATCH"}  # HTTP/2 needs neither header


def can_change_tasks(receive: Receive) -> bool:
    """Whether a call of a server's ``receive()`` for HTTP can be begun in one task and ended in another.

    It can where all that it ever waits for is an ``asyncio.Event`` (uvicorn) or an ``asyncio.Queue``
    (Hypercorn): these know futures, not tasks. A call that has a timeout, as gunicorn's has, belongs to
    its task; and of a middleware's nobody knows.
    """
    return getattr(receive, "__module__", None) in _TASKLESS and type(receive) is MethodType


_UVICORN = frozenset({"uvicorn.protocols.http.h11_impl", "uvicorn.protocols.http.httptools_impl"})
_TASKLESS = _UVICORN | {"asyncio.queues"}


def opens_no_scopes(send: Send) -> bool:
    """Whether a server's ``send()`` for HTTP is known to open no scope of AnyIO: uvicorn's.

    The innermost scope, once it waits, is still the one that it was called in.
    """
    return type(send) is MethodType and send.__module__ in _UVICORN


def is_in_base_http_middleware(receive: Receive, send: Send) -> bool:
    """Whether a ``BaseHTTPMiddleware`` of Starlette is around us.

    It takes an application without an answer for broken, even if its client has left; and it may want
    to read the body itself, after the application. Other middlewares between it and us wrap ``send``
    more often than ``receive``.
    """
    return "starlette.middleware.base" in {getattr(part, "__module__", None) for part in (receive, send)}


def termination_of(send: Send) -> Callable[[], Awaitable[None]] | None:
    """Return what waits for the server's end, where it can be had: on Hypercorn.

    Its workers are told to stop through an event that no signal goes with, and its ``send`` is a method
    of what knows that event. Middlewares wrap ``send`` in functions that refer to it by this name.
    """
    innermost: Any = send
    while isinstance(innermost, FunctionType) and "send" in innermost.__code__.co_freevars:
        cell = (innermost.__closure__ or ())[innermost.__code__.co_freevars.index("send")]
        innermost = cell.cell_contents
    context = getattr(getattr(innermost, "__self__", None), "context", None)
    wait = getattr(getattr(context, "terminated", None), "wait", None)
    return wait if iscoroutinefunction(wait) else None


def route_template(scope: Mapping[str, Any]) -> str | None:
    """Return the path that the request was routed by, with its parameters' names, if there is one."""
    # Newer FastAPIs keep what an included router adds to a route's path to themselves.
    places: Mapping[str, Any] = scope.get("fastapi") or {}
    for route in (places.get("effective_route_context"), scope.get("route")):
        path: Any = getattr(route, "path_format", None) or getattr(route, "path", None)
        if isinstance(path, str) and path:  # it is empty for what is mounted in an included router
            return path
    return None
