"""Closing what a stream was made of: in order, and all of it."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


async def close_all(sources: Iterable[Any]) -> None:
    """Close *sources* in their order, each of them once, and the next one even if one raises."""
    async with AsyncExitStack() as stack:
        for source in reversed({id(source): source for source in sources}.values()):
            close: Callable[[], Awaitable[object]] | None = getattr(source, "aclose", None)
            if close is not None:
                stack.push_async_callback(_close, close)


async def _close(close: Callable[[], Awaitable[object]]) -> None:
    try:
        await close()
    except BaseExceptionGroup as error:
        # A task group that is open across a ``yield`` has wrapped what closes the generator.
        rest = error.split(GeneratorExit)[1]
        if rest is not None:
            raise rest from None
