"""The watch over the sources of one operation, while its block runs.

1. All sources wait in one task group. It lies around the block's own scope: what cancels the operation
   does not cancel the group, so that the group never takes a cancelation for its own.
2. Each source has a scope, which alone ends it. It is shielded: a cancelation from outside reaches the
   sources by way of the block, once that has been left. So it is the only one in the group to be told.
3. By the time that the group is left, no source runs any more. Waiting for that is shielded, too: all
   of them have been interrupted, so nothing would be gained by interrupting the wait.
4. A source that fails does not fail the group, which would wrap the error, but the operation.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import cast

from anyio import CancelScope, Event, create_task_group
from anyio.lowlevel import cancel_shielded_checkpoint

from ._core._errors import leaves
from ._core._reasons import Cancelation, CancelationReason
from .sources._source import Source, wait_for

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


class Watch:
    """Waits for sources, from `open` to `close`.

    Args:
        sources: What to wait for, each with what to call with its cancelation if it fires.
        settle: Called with the cancelation of each source that fails.
    """

    def __init__(
        self,
        sources: Iterable[tuple[Source, Callable[[Cancelation], object]]],
        settle: Callable[[Cancelation], object],
    ) -> None:
        self._scopes = [(source, hear, CancelScope(shield=True)) for source, hear in sources]
        self._settle = settle
        self._group = create_task_group()
        self._running = 0  # sources that have begun to wait, and not ended
        self._is_over = False
        self._idle = Event()
        self.failures: list[Exception] = []  #: what sources raised

    async def open(self) -> None:
        """Enter the task group. Whoever calls this has to call `close`. Not a checkpoint."""
        await self._group.__aenter__()

    async def start(self) -> None:
        """Have all sources wait. Not interrupted by AnyIO's cancelations."""
        for source, hear, scope in self._scopes:
            self._group.start_soon(self._wait, source, hear, scope, name=repr(source))
        # After two steps of this task each of the others has made its first one, although Trio runs
        # those that are ready in random order: a signal that comes now finds its listener.
        await cancel_shielded_checkpoint()
        await cancel_shielded_checkpoint()

    async def close(self, exc: BaseException | None) -> BaseException | None:
        """End the sources, and leave the task group.

        Returns:
            The exception that goes on: *exc*, or what has come instead.
        """
        self._is_over = True
        for _, _, scope in self._scopes:
            scope.cancel()
        interruption = None
        try:
            with CancelScope(shield=True):
                if self._running:
                    await self._idle.wait()
                    await cancel_shielded_checkpoint()  # for asyncio to notice that the tasks have ended
        except BaseException as error:  # an interruption of the task, which no scope can stop
            exc = interruption = error
        try:
            is_caught = await self._group.__aexit__(
                None if exc is None else type(exc), exc, None if exc is None else exc.__traceback__
            )
        except BaseException as error:
            return _unwrapped(error, exc)
        # Below Python 3.11, scopes take a native cancelation for their own if it came while one of
        # theirs was on its way out.
        return None if is_caught and interruption is None else exc

    async def _wait(self, source: Source, hear: Callable[[Cancelation], object], scope: CancelScope) -> None:
        self._running += 1
        try:
            with scope:
                self._tell(hear, await wait_for(source))
        except Exception as error:
            self.failures.append(error)
            message = f"a source failed: {error!r}"
            self._tell(self._settle, Cancelation(CancelationReason.ERROR, message, by=repr(source)))
        except BaseException as error:  # Ctrl-C, or somebody cancelled the task: the group ends the block
            message = f"the task of a source was ended by {type(error).__name__}"
            self._tell(self._settle, Cancelation(CancelationReason.EXTERNAL, message, by=repr(source)))
            raise
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    def _tell(self, hear: Callable[[Cancelation], object], cancelation: Cancelation) -> None:
        if not self._is_over:  # else the block has ended in time, if only just
            hear(cancelation)


def _unwrapped(error: BaseException, exc: BaseException | None) -> BaseException:
    """Take from what the task group raised the group that it puts around everything.

    Around *exc* as well, whether that is a group itself or not; and on Trio it raises a new exception
    in place of a cancelation.
    """
    if exc is not None and _ids(error.__cause__ or error) == _ids(exc):
        return exc
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return group.exceptions[0] if len(group.exceptions) == 1 else group
    return error


def _ids(error: BaseException) -> set[int]:
    return {id(leaf) for leaf in leaves(error)}
