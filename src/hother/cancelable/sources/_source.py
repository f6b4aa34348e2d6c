"""What a source is, and how the operations that use it speak of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

from .._core._public import public
from .._core._reasons import Cancelation


@public
class Source(Protocol):
    """Something that may cancel an operation: whatever has a coroutine method ``wait()``.

    The operation waits for it in a task of its own, from entering the block until leaving it, and
    interrupts it then. What ``wait()`` raises ends the operation with that error.

    A source may be given to several operations. Each of them waits for it.
    """

    async def wait(self) -> Cancelation:
        """Wait until there is a reason to cancel, and return it.

        If it does not say ``by`` whom, the operation writes the source's ``repr`` there.
        """
        ...


def checked_sources(sources: Iterable[Source]) -> tuple[Source, ...]:
    """Return *sources* as a tuple.

    Raises:
        TypeError: If one of them has no method ``wait``.
    """
    sources = tuple(sources)
    for source in sources:
        if isinstance(source, type) or not callable(getattr(source, "wait", None)):
            raise TypeError(f"a source must have a coroutine method wait(), got {source!r}")
    return sources


async def wait_for(source: Source) -> Cancelation:
    """Wait for *source*, and return a record that says who it was.

    Raises:
        TypeError: If ``wait()`` returns something else than a `Cancelation`.
    """
    cancelation = await source.wait()
    if not isinstance(cancelation, Cancelation):
        raise TypeError(f"wait() of a source must return a Cancelation, {source!r} returned {cancelation!r}")
    return replace(cancelation, by=repr(source)) if cancelation.by is None else cancelation
