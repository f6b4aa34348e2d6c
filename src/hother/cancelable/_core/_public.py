"""Where a name lives for those who use it."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def public(thing: T) -> T:
    """Mark a class or function as a public name of the package: tracebacks and pickles show it there."""
    thing.__module__ = __name__.partition("._core")[0]
    return thing
