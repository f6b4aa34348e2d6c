"""Says, once per process, that a server has cancelled a request which was to go on without its client."""

from __future__ import annotations

import logging

logger = logging.getLogger("hother.cancelable")

_has_said = [False]


def say_that_it_was_cancelled() -> None:
    """Say that a policy, or a commitment, was cut short from outside, and where to ask for more. Once only.

    The two servers that do so by themselves have been seen to (gunicorn 27.0, daphne 4.2): from the inside,
    nobody can be told from anybody else who cancels a task, nor be held up.
    """
    if not _has_said[0]:
        _has_said[0] = True
        logger.warning(
            "a request that was to go on without its client (on_disconnect, commit()) was cancelled from "
            "outside, as some servers do a while after a client has left: tell gunicorn "
            "--asgi-disconnect-grace-period (3 seconds by default), daphne --application-close-timeout (10). "
            "This is said once"
        )
