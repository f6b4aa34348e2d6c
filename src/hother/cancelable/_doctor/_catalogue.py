"""All scenarios, in the order of the table."""

from __future__ import annotations

from ._blind_spots import blind_spots, crowds
from ._bodies import bodies
from ._frameworks import frameworks
from ._matrix import matrix
from ._shutdown import shutdowns
from ._stage import TIMEOUT
from ._websockets import websockets

SCENARIOS = (*matrix(), *frameworks(), *websockets(), *bodies(), *crowds(), *shutdowns(), *blind_spots())

WARM_UP = tuple(
    f"/{stack}/{timeout:g}/ping?run={{run}}"
    for stack in ("outermost", "added", "around-base", "in-base", "mounted", "twice")
    for timeout in (0, TIMEOUT)
)
"""Requests that make all that is made once."""
