"""A background task that also runs when its response is cut, or never sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec

from starlette.background import BackgroundTask

from ..asgi import clean_up_with

P = ParamSpec("P")


class CleanupTask(BackgroundTask):
    """A background task that runs in any case, once: to delete a file, or to give something back.

    Background tasks follow a response that is complete. A response that is cut short, because its client
    has left or its time is up, has none; what they were to clean up would stay. This one runs then, too,
    when the request is over: shielded, and for 10 seconds at most. It is made in the request, and counts
    from there: also if the endpoint is interrupted before it returns its response.

    Usable wherever a ``BackgroundTask`` is, and as a function for ``BackgroundTasks.add_task``. Without
    `RequestCancelationMiddleware` it is a ``BackgroundTask`` like any other.

    Args:
        func: What to call; an ``async def`` function is awaited, any other runs in a thread.
        *args: Its arguments.
        **kwargs: Its keyword arguments.
    """

    def __init__(self, func: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> None:
        super().__init__(func, *args, **kwargs)
        self._is_due = True
        clean_up_with(self)

    async def __call__(self) -> None:
        """Run, unless that has happened before."""
        if self._is_due:
            self._is_due = False
            await super().__call__()
