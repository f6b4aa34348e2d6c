"""What a piece of code leaves behind: running tasks, open blocks, callbacks on tokens."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, final
from weakref import WeakKeyDictionary, WeakSet

from anyio import get_running_tasks, wait_all_tasks_blocked

from .._block import Block
from .._core._token import CancelationToken

if TYPE_CHECKING:
    from typing_extensions import Self


@final
class LeakCheck:
    """A block that must leave nothing behind, neither of ours nor a running task.

    ::

        async with LeakCheck():
            await serve_one_request()

    It compares what there is on leaving with what there was on entering: operations and steps of
    streams that were begun and not ended, callbacks (waiters and children among them) that wait for a
    token to be cancelled, tasks of this event loop. It looks through all objects of the process, so it
    takes some milliseconds, and what other tasks and threads do at the same time counts as well.

    With a plain ``with`` it does not look for tasks; so it works without an event loop, too.

    Raises:
        AssertionError: If something is left; the message lists it. Not if the block itself raises.
    """

    def __init__(self) -> None:
        self._callbacks: WeakKeyDictionary[CancelationToken, int] = WeakKeyDictionary()
        self._blocks: WeakSet[Block] = WeakSet()
        self._tasks: set[int] = set()

    def __enter__(self) -> Self:
        for thing in _things():
            if isinstance(thing, Block):
                self._blocks.add(thing)
            else:
                self._callbacks[thing] = _callbacks_of(thing)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is None:
            _complain(self.left())

    async def __aenter__(self) -> Self:
        self._tasks = {task.id for task in get_running_tasks()}
        return self.__enter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None:
            return
        left = self.left()
        if any(self._new_tasks()):
            await wait_all_tasks_blocked()  # some may be about to end
            left = self.left()
        _complain([*left, *self._new_tasks()])

    def left(self) -> list[str]:
        """Tell what is left right now, tasks aside."""
        left: list[str] = []
        for thing in _things():
            if isinstance(thing, Block):
                if thing not in self._blocks:
                    left.append(f"an open block of {thing._owner!r}")
            else:
                number = _callbacks_of(thing) - self._callbacks.get(thing, 0)
                if number > 0:
                    left.append(f"{number} callback{'s' * (number > 1)} on {thing!r}")
        return left

    def _new_tasks(self) -> Iterator[str]:
        return (f"the task {task.name}" for task in get_running_tasks() if task.id not in self._tasks)


def _things() -> Iterator[Block | CancelationToken]:
    """Everything of ours that is alive, and may wait for something."""
    gc.collect()
    for thing in gc.get_objects():  # type() rather than isinstance(), which asks proxies and mocks
        if type(thing) is CancelationToken or (type(thing) is Block and not thing.is_closed):
            yield thing


def _callbacks_of(token: CancelationToken) -> int:
    return token.statistics().callbacks


def _complain(left: list[str]) -> None:
    if left:
        raise AssertionError("left behind:\n" + "\n".join(f"* {thing}" for thing in left))
