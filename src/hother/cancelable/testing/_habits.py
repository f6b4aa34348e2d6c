"""How servers differ where the ASGI specification leaves it open, or is not followed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How one server behaves where the specification leaves it open, or is not followed."""

    name: str
    spec_version: str
    repeats_disconnect: bool  #: ``receive()`` answers a disconnect again and again, or only once
    ends_with_disconnect: bool  #: a complete response counts as a disconnect
    drops_body: bool  #: a disconnect throws away the part of the body that was not read yet
    checkpoints: bool  #: ``receive()`` and ``send()`` are checkpoints even if they need not wait
    mistakes_cancel: bool  #: a cancelled ``receive()`` is taken for a disconnect
    frees_send: bool  #: a disconnect ends a ``send()`` that waits for the client to read
    late_send: Literal["ignored", "raises", "hangs"]  #: a ``send()`` after the disconnect
    late_send_ws: Literal["ignored", "raises"]  #: the same, to a WebSocket

    def __str__(self) -> str:
        return self.name


UVICORN = Habits(
    name="uvicorn",
    spec_version="2.3",
    repeats_disconnect=True,
    ends_with_disconnect=True,
    drops_body=True,
    checkpoints=False,
    mistakes_cancel=False,
    frees_send=True,
    late_send="ignored",
    late_send_ws="raises",
)
HYPERCORN = Habits(  # on Trio; on asyncio it is less of a checkpoint
    name="hypercorn",
    spec_version="2.1",
    repeats_disconnect=False,
    ends_with_disconnect=True,
    drops_body=False,
    checkpoints=True,
    mistakes_cancel=False,
    frees_send=True,
    late_send="ignored",
    late_send_ws="ignored",
)
HYPERCORN_H2 = Habits(  # once the whole connection is gone, not only one stream of it
    name="hypercorn-h2",
    spec_version="2.1",
    repeats_disconnect=False,
    ends_with_disconnect=True,
    drops_body=False,
    checkpoints=True,
    mistakes_cancel=False,
    frees_send=True,
    late_send="hangs",
    late_send_ws="ignored",
)
GUNICORN = Habits(
    name="gunicorn",
    spec_version="2.4",
    repeats_disconnect=True,
    ends_with_disconnect=False,
    drops_body=False,
    checkpoints=False,
    mistakes_cancel=True,
    frees_send=False,
    late_send="ignored",
    late_send_ws="raises",
)
STRICT = Habits(  # no server of today, but what version 2.4 of the specification asks for
    name="spec-2.4",
    spec_version="2.4",
    repeats_disconnect=True,
    ends_with_disconnect=True,
    drops_body=False,
    checkpoints=True,
    mistakes_cancel=False,
    frees_send=True,
    late_send="raises",
    late_send_ws="raises",
)
ALL_HABITS = (UVICORN, HYPERCORN, HYPERCORN_H2, GUNICORN, STRICT)
