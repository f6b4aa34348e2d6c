"""A plain iterator, gone through in worker threads."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock
from typing import Any

from anyio import to_thread

_END = object()


class ThreadSteps:
    """Makes an async iterator of a plain one: each step, and closing it, happens in a worker thread.

    Args:
        iterable: What to go through.
    """

    __slots__ = ("_iterator", "_lock")

    def __init__(self, iterable: Iterable[Any]) -> None:
        self._iterator = iter(iterable)
        # A cancelled task may leave a thread behind that is in the middle of a step, and a generator
        # cannot be closed while it runs.
        self._lock = Lock()

    def __aiter__(self) -> ThreadSteps:
        return self

    async def __anext__(self) -> Any:
        """Make a step. Always a checkpoint."""
        item = await to_thread.run_sync(self._step)
        if item is _END:
            raise StopAsyncIteration
        return item

    async def aclose(self) -> None:
        """Close it, if it is a generator. Nobody waits for a thread that takes too long."""
        if hasattr(self._iterator, "close"):
            await to_thread.run_sync(self._close, abandon_on_cancel=True)

    def _step(self) -> Any:
        with self._lock:  # a thread cannot raise StopIteration into a task
            return next(self._iterator, _END)

    def _close(self) -> None:
        with self._lock:
            self._iterator.close()  # type: ignore[attr-defined]
