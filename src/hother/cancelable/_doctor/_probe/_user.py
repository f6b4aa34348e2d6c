"""The application of a user, between the witness and our handlers.

If it is Starlette's or FastAPI's, the handlers are mounted below all of its middleware.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Mount

from ... import asgi
from ._handlers import create_app, router
from ._witness import ORDERS, Witness

APP = "HOTHER_DOCTOR_APP"
"""The environment variable with ``module:attribute`` of the application."""

PROBES = "/__doctor__"


def load(place: str) -> Any:
    """Import an application.

    Raises:
        ImportError: If its module is not there.
        AttributeError: If it is not in there.
        TypeError: If it is no ASGI application.
    """
    module, _, attribute = place.partition(":")
    app: Any = import_module(module)
    for name in (attribute or "app").split("."):
        app = getattr(app, name)
    asgi.RequestCancelationMiddleware(app)  # which complains of what is none
    return app


def layers(app: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield each layer of an application, from the outermost inwards: its class, and its options."""
    while app is not None and not isinstance(app, Starlette):
        yield type(app), vars(app) if hasattr(app, "__dict__") else {}
        app = getattr(app, "app", None)
    if app is not None:
        for middleware in app.user_middleware:
            yield middleware.cls, _options_of(middleware)
        yield type(app), {}


def _options_of(middleware: Middleware) -> dict[str, Any]:
    options = dict(middleware.kwargs)
    if middleware.args:  # the first one that the middleware takes, after the application
        options.setdefault("default_timeout", middleware.args[0])
    return options


def describe(app: Any) -> list[dict[str, Any]]:
    """Return what is known of each layer."""
    return [
        {
            "name": getattr(kind, "__name__", repr(kind)),
            "is_base": isinstance(kind, type) and issubclass(kind, BaseHTTPMiddleware),
            "is_ours": isinstance(kind, type) and issubclass(kind, asgi.RequestCancelationMiddleware),
            "timeout": _option("default_timeout", options),
            "on_disconnect": _option("on_disconnect", options),
        }
        for kind, options in layers(app)
    ]


def _option(name: str, options: dict[str, Any]) -> float | str | None:
    """Return what an option of ours says, which may be one of a middleware that is made already."""
    value = options.get(name) or getattr(options.get("_options"), name, None)
    return value if value is None or isinstance(value, (int, float, str)) else repr(value)


def add_probes(app: Any) -> bool:
    """Mount our handlers in an application, whatever policy it has. Returns whether that can be done."""
    while app is not None and not isinstance(app, Starlette):
        app = getattr(app, "app", None)
    if app is None:
        return False
    for route in router.routes:
        endpoint: Any = getattr(route, "endpoint", None)
        asgi.RequestPolicy(timeout=None, on_disconnect="cancel")(endpoint)
    app.router.routes.insert(0, Mount(PROBES, create_app()))
    return True


def witnessed(place: str) -> Witness:
    """Load an application, prepare it, and put the witness around it."""
    app = load(place)
    found = {"layers": describe(app), "probes": add_probes(app)}
    ORDERS["layers"] = lambda query: found
    return Witness(app)


app = witnessed(os.environ[APP]) if APP in os.environ else None
