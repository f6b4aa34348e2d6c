"""For tests of cancelable code, ours and yours, on asyncio and on Trio.

* `virtual_backend`: hours of timeouts that take no time;
* `sweep`: cancel a function at every place where it waits, and see whether it can stand that;
* `Recorder`: what operations did, as a story;
* `Peer`: a client and a server for an ASGI application; it hangs up at the worst moment;
* `StreamSimulator`: a source of items with the moods of real ones;
* `LeakCheck`: nothing was left behind.

There are pytest fixtures for them, too: see `hother.cancelable.pytest_plugin`.
"""

from __future__ import annotations

from ..asgi._types import ASGIApp, Message, Receive, Scope, Send
from ._after import After
from ._answer import Answer
from ._checkpoint import Checkpoint, Interruption
from ._clock import AutojumpEventLoop, virtual_backend
from ._habits import ALL_HABITS, GUNICORN, HYPERCORN, HYPERCORN_H2, STRICT, UVICORN, Habits
from ._leftovers import LeakCheck
from ._peer import Peer
from ._recorder import Recorder
from ._stream import StreamSimulator
from ._sweep import SweepError, sweep

__all__ = (
    "ALL_HABITS",
    "GUNICORN",
    "HYPERCORN",
    "HYPERCORN_H2",
    "STRICT",
    "UVICORN",
    "ASGIApp",
    "After",
    "Answer",
    "AutojumpEventLoop",
    "Checkpoint",
    "Habits",
    "Interruption",
    "LeakCheck",
    "Message",
    "Peer",
    "Receive",
    "Recorder",
    "Scope",
    "Send",
    "StreamSimulator",
    "SweepError",
    "sweep",
    "virtual_backend",
)

for _public in (
    After,
    Answer,
    AutojumpEventLoop,
    Checkpoint,
    Habits,
    LeakCheck,
    Peer,
    Recorder,
    StreamSimulator,
    SweepError,
    sweep,
    virtual_backend,
):
    _public.__module__ = __name__
del _public
