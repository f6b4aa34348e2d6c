"""What can be told from the outside about who calls us, and how it behaves; each with its reason."""

from __future__ import annotations

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


def is_in_base_http_middleware(receive: Receive, send: Send) -> bool:
    """Whether a ``BaseHTTPMiddleware`` of Starlette is around us.

    It takes an application without an answer for broken, even if its client has left; and it may want
    to read the body itself, after the application. Other middlewares between it and us wrap ``send``
    more often than ``receive``.
    """
    return "starlette.middleware.base" in {getattr(part, "__module__", None) for part in (receive, send)}
