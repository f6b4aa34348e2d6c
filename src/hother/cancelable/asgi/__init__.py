"""The request: cancelation for any ASGI 3 application, without a framework.

``_receive`` reads what the client sends and sees it leave, ``_response`` follows what is sent to it,
``_outcome`` says what a cancelation looks like on the wire, ``_exchange`` ties them together for one
request, and ``_middleware`` does that for every request.
"""

from __future__ import annotations

from ._exchange import TOKEN_KEY, current_request_token
from ._middleware import RequestCancelationMiddleware
from ._options import OnDisconnect
from ._outcome import PROBLEM_JSON, Outcome, close_message, outcome_of, problem
from ._types import ASGIApp

__all__ = (
    "PROBLEM_JSON",
    "TOKEN_KEY",
    "ASGIApp",
    "OnDisconnect",
    "Outcome",
    "RequestCancelationMiddleware",
    "close_message",
    "current_request_token",
    "outcome_of",
    "problem",
)
