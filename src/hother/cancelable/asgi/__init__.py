"""The request: cancelation for any ASGI 3 application, without a framework.

``_receive`` reads what the client sends and sees it leave, ``_response`` follows what is sent to it,
``_outcome`` says what a cancelation looks like on the wire, ``_exchange`` ties them together for one
request, and ``_middleware`` does that for every request. ``_policy`` holds what routes and applications
may decide, ``_course`` decides by it when something happens to a request, and ``_shutdown`` and
``_lifespan`` hear of the server's end. ``_access_log`` tells what became of it.
"""

from __future__ import annotations

from ._commit import apply_policy, clean_up_with, commit, current_shutdown_token
from ._current import current_request_token
from ._exchange import TOKEN_KEY
from ._middleware import RequestCancelationMiddleware
from ._outcome import PROBLEM_JSON, Outcome, close_message, outcome_of, problem
from ._policy import Grace, OnDisconnect, OnShutdown, RequestPolicy
from ._shutdown import begin_shutdown
from ._types import ASGIApp

__all__ = (
    "PROBLEM_JSON",
    "TOKEN_KEY",
    "ASGIApp",
    "Grace",
    "OnDisconnect",
    "OnShutdown",
    "Outcome",
    "RequestCancelationMiddleware",
    "RequestPolicy",
    "apply_policy",
    "begin_shutdown",
    "clean_up_with",
    "close_message",
    "commit",
    "current_request_token",
    "current_shutdown_token",
    "outcome_of",
    "problem",
)
