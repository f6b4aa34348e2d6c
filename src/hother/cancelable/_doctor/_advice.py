"""What to do about what was found in an application."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

OURS = "RequestCancelationMiddleware"
_HOW = f"Add it last: app.add_middleware({OURS}), after all others"


def advice_about(layers: Sequence[dict[str, Any]], *, has_probes: bool) -> Iterator[str]:
    """Yield what the layers of an application suggest, a sentence each.

    Args:
        layers: From the outermost inwards, as the application's process describes them.
        has_probes: Whether our handlers could be mounted below them.
    """
    if not has_probes:
        yield (
            "The application is not Starlette's or FastAPI's, or is wrapped in something that does not keep "
            "it as `.app`: only the given path was looked at."
        )
    ours = next((number for number, layer in enumerate(layers) if layer["is_ours"]), None)
    if ours is None:
        yield f"{OURS} was not found. {_HOW}."
        return
    if (policy := layers[ours].get("on_disconnect")) not in {None, "cancel"}:
        yield (
            f"{OURS} says on_disconnect={policy}: handlers run on when their client leaves, unless their "
            "route says otherwise, as those of the doctor do."
        )
    for layer in layers[:ours]:
        if layer["is_base"]:
            yield (
                f"{layer['name']} is a BaseHTTPMiddleware outside of {OURS}: it is not stopped with a "
                "request, insists on an answer, makes a stream that was cut short look whole, and hides a "
                f"client's leaving behind a body that was not read. {_HOW}."
            )
        else:
            yield f"{layer['name']} is outside of {OURS}, and is not stopped with a request."


def advice_for_status(status: int | None) -> str | None:
    """Return what to do if the application answered before a handler of ours was reached."""
    if status in {401, 403}:
        return f"The application answered {status}: let us in with --header 'Authorization: ...'."
    if status is not None and status != 200:
        return f"The application answered {status} before our handler was reached: look at its middleware."
    return None
