"""What all constructors of operations take by keyword."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from inspect import iscoroutinefunction
from math import inf
from typing import TYPE_CHECKING, Any, TypedDict

from ._cleanup import Cleanup
from ._core._observers import Observer
from ._core._public import public
from ._core._reasons import Cancelation
from ._core._timeouts import seconds
from ._core._token import CancelationToken
from ._terms import USUAL, Terms

if TYPE_CHECKING:
    from datetime import timedelta

    from ._scope import Cancelable


@public
class OperationOptions(TypedDict, total=False):
    """What every constructor of `Cancelable` takes by keyword."""

    operation_id: str | None  #: instead of a random id
    name: str | None  #: for errors and logs
    parent: Cancelable | None  #: an operation whose cancelation and deadline hold for this one, too
    metadata: Mapping[str, Any] | None  #: anything, for observers
    raise_on_cancel: bool  #: False: leave the block quietly when cancelled
    observers: Iterable[Observer]  #: who is told of this operation, besides those who watch all
    unless: Callable[[Cancelation], bool] | None  #: declines a cause that comes from elsewhere: returns True
    grace: float | timedelta | None  #: seconds from being cancelled to being interrupted
    cleanup_budget: float | timedelta | None  #: seconds that all shielded clean-up shares, once interrupted


_NAMES = frozenset(OperationOptions.__annotations__)


def check_names(options: Mapping[str, Any]) -> None:
    """Refuse what is no option.

    Raises:
        TypeError: If there is such a thing.
    """
    if not options.keys() <= _NAMES:
        unknown = options.keys() - _NAMES
        raise TypeError(f"Cancelable() got unexpected arguments: {', '.join(sorted(unknown))}")


def checked_tokens(tokens: Iterable[CancelationToken]) -> tuple[CancelationToken, ...]:
    """Return *tokens* as a tuple, or raise ``TypeError`` if one of them is none."""
    tokens = tuple(tokens)
    for token in tokens:
        if not isinstance(token, CancelationToken):
            raise TypeError(f"tokens must be CancelationTokens, got {token!r}")
    return tokens


def checked_policy(unless: Callable[[Cancelation], bool] | None) -> Callable[[Cancelation], bool] | None:
    """Return *unless*, or raise ``TypeError`` if it cannot be asked by any thread at any time."""
    if unless is not None and (not callable(unless) or iscoroutinefunction(unless)):
        raise TypeError(f"unless must be a plain function, got {unless!r}")
    return unless


def checked_terms(options: OperationOptions) -> Terms:
    """Return the terms that *options* give, or raise ``TypeError`` or ``ValueError`` if they are no times."""
    grace = seconds(options.get("grace"), "grace")
    if grace is None:
        grace = inf if options.get("grace") else 0.0
    budget = seconds(options.get("cleanup_budget"), "cleanup_budget")
    if grace == 0.0 and budget is None:
        return USUAL
    return Terms(grace, None if budget is None else Cleanup(budget))
