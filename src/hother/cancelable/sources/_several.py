"""Sources made of sources: the first of them cancels, or the last."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

from anyio import create_task_group

from .._core._public import public
from .._core._reasons import Cancelation
from ._source import Source, checked_sources, wait_for


@public
@final
class AnyOfSource:
    """Cancels as soon as any of several sources does, for that one's reason.

    Args:
        sources: At least one; they may be made of sources themselves.

    Raises:
        TypeError: If one of *sources* is not a source.
        ValueError: If there is none.
    """

    __slots__ = ("_sources",)

    def __init__(self, sources: Iterable[Source]) -> None:
        self._sources = _at_least_one(sources, self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self._sources)!r})"

    async def wait(self) -> Cancelation:
        """Wait for the first source to fire, or to fail, and interrupt the others. Always a checkpoint."""
        return (await _first(self._sources, 1))[0]


CompositeSource = AnyOfSource


@public
@final
class AllOfSource:
    """Cancels once every one of several sources has fired.

    The reason is that of the last one, whose record is the ``cause``.

    Args:
        sources: At least one; they may be made of sources themselves.

    Raises:
        TypeError: If one of *sources* is not a source.
        ValueError: If there is none.
    """

    __slots__ = ("_sources",)

    def __init__(self, sources: Iterable[Source]) -> None:
        self._sources = _at_least_one(sources, self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self._sources)!r})"

    async def wait(self) -> Cancelation:
        """Wait for the last source to fire, or for the first to fail. Always a checkpoint."""
        last = (await _first(self._sources, len(self._sources)))[-1]
        return Cancelation(last.reason, f"all of {len(self._sources)} sources fired: {last.text}", cause=last)


def _at_least_one(sources: Iterable[Source], owner: object) -> tuple[Source, ...]:
    sources = checked_sources(sources)
    if not sources:
        raise ValueError(f"{type(owner).__name__}() needs at least one source")
    return sources


async def _first(sources: Iterable[Source], number: int) -> list[Cancelation]:
    """Wait for so many of *sources*, in the order in which they fire; or raise the first error."""
    fired: list[Cancelation] = []
    failed: list[Exception] = []

    async def wait(source: Source) -> None:
        # Errors are carried out by hand: a task group would put a single one into a group.
        try:
            fired.append(await wait_for(source))
        except Exception as error:
            failed.append(error)
        if failed or len(fired) >= number:
            tasks.cancel_scope.cancel()

    async with create_task_group() as tasks:
        for source in sources:
            tasks.start_soon(wait, source, name=repr(source))
    if failed:
        raise failed[0]
    return fired
