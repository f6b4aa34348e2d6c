"""One line for each request that was cancelled.

Servers log nothing about a request whose client has left, or a status that nobody has sent. The logger is
an ordinary one of the standard library, and silent unless somebody turns it to ``INFO``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias
from urllib.parse import quote

from .._core._reasons import Cancelation
from ._outcome import outcome_of, root_of
from ._quirks import route_template
from ._response import Phase, Response

logger = logging.getLogger("hother.cancelable.access")
logger.addHandler(logging.NullHandler())

Result: TypeAlias = Literal["answered", "completed", "cut", "unsent"]


def log_cancelled(
    scope: Mapping[str, Any],
    response: Response,
    cancelation: Cancelation,
    *,
    latency: float,
    is_gone: bool,
    was_cut: bool,
    has_outcome: bool,
) -> None:
    """Write the line of a request that is over.

    Args:
        scope: The request's.
        response: What was sent.
        cancelation: Why the request was cancelled.
        latency: How long the handler ran on, in seconds.
        is_gone: Whether the client has left.
        was_cut: Whether it has left in the middle of its response, however far the handler got with it.
        has_outcome: Whether a middleware of ours has answered, rather than the application.
    """
    if not logger.isEnabledFor(logging.INFO):
        return
    result = "cut" if was_cut else _result(response.phase, is_gone=is_gone, has_outcome=has_outcome)
    fields = {
        "client": _address(scope.get("client")),
        "method": scope.get("method", "WEBSOCKET"),
        "path": quote(scope["path"]),
        "route": route_template(scope),
        "reason": str(root_of(cancelation).reason),
        "by": cancelation.by,
        "latency": latency,
        "status": _status(scope["type"], response, cancelation, result),
        "result": result,
    }
    logger.info(
        '%s "%s %s" %s %s: %s, handler ended after %.1f ms',
        fields["client"],
        fields["method"],
        fields["path"],
        fields["status"],
        result,
        cancelation,
        latency * 1000,
        extra={**fields, "cancelation": cancelation},
    )


def _result(phase: Phase, *, is_gone: bool, has_outcome: bool) -> Result:
    if phase is Phase.COMPLETE:
        if has_outcome:
            return "answered"
        return "unsent" if is_gone else "completed"
    return "unsent" if phase is Phase.NOT_STARTED else "cut"


def _status(kind: str, response: Response, cancelation: Cancelation, result: Result) -> int:
    if result != "unsent" and response.status is not None:
        return response.status
    outcome = outcome_of(cancelation)
    return outcome.status if kind == "http" else outcome.close_code


def _address(client: Any) -> str:
    return f"{client[0]}:{client[1]}" if client and client[0] else "-"  # Granian: no host, port 0
