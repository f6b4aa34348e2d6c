"""Says, once per process, that nobody can see the client of some request leave."""

from __future__ import annotations

import logging

logger = logging.getLogger("hother.cancelable")

BLIND_AFTER = 1.0
"""How long what arrives must wait for room before it is worth a line, in seconds."""

_has_said = [False]


def say_that_it_is_unread(read_ahead: int) -> None:
    """Say that a client's leaving is in line behind what its handler does not read. The first call only."""
    if not _has_said[0]:
        _has_said[0] = True
        logger.warning(
            "more than read_ahead=%d bytes that a client has sent wait for its handler: as long as they do, "
            "nobody can see that client leave. Read the body or refuse it early, set a timeout, or raise "
            "read_ahead. This is said once",
            read_ahead,
        )
