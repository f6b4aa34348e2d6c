"""The application of a user, between the witness and our handlers.

If it is Starlette's or FastAPI's, the handlers are mounted below all of its middleware.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Mount

from ... import asgi
from ._handlers import create_app
from ._witness import ORDERS, Witness

APP = "HOTHER_DOCTOR_APP"
"""The environment variable with ``module:attribute`` of the application."""

PROBES = "/__doctor__"


def load(place: str) -> Any:
    """Import an application.

    Raises:
        ImportError: If it is not there.
    """
    module, _, attribute = place.partition(":")
    app: Any = import_module(module)
    for name in (attribute or "app").split("."):
        app = getattr(app, name)
    return app


def layers(app: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield each layer of an application, from the outermost inwards: its class, and its options."""
    while app is not None and not isinstance(app, Starlette):
        yield type(app), vars(app) if hasattr(app, "__dict__") else {}
        app = getattr(app, "app", None)
    if app is not None:
        for middleware in app.user_middleware:
            yield middleware.cls, dict(middleware.kwargs)
        yield type(app), {}


def describe(app: Any) -> list[dict[str, Any]]:
    """Return what is known of each layer."""
    return [
        {
            "name": getattr(kind, "__name__", repr(kind)),
            "is_base": isinstance(kind, type) and issubclass(kind, BaseHTTPMiddleware),
            "is_ours": isinstance(kind, type) and issubclass(kind, asgi.RequestCancelationMiddleware),
            "timeout": _timeout_of(options),
        }
        for kind, options in layers(app)
    ]


def _timeout_of(options: dict[str, Any]) -> float | None:
    timeout = options.get("default_timeout") or getattr(options.get("_options"), "default_timeout", None)
    return float(timeout) if isinstance(timeout, (int, float)) else None


def add_probes(app: Any) -> bool:
    """Mount our handlers in an application. Returns whether that can be done."""
    while app is not None and not isinstance(app, Starlette):
        app = getattr(app, "app", None)
    if app is None:
        return False
    app.router.routes.insert(0, Mount(PROBES, create_app()))
    return True


def witnessed(place: str) -> Witness:
    """Load an application, prepare it, and put the witness around it."""
    app = load(place)
    found = {"layers": describe(app), "probes": add_probes(app)}
    ORDERS["layers"] = lambda query: found
    return Witness(app)


app = witnessed(os.environ[APP]) if APP in os.environ else None
