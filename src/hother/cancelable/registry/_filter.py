"""Which operations are meant: by name, status, parent, metadata and age."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from math import inf
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, final

from .._core._lifecycle import OperationStatus
from .._core._operation import OperationContext
from .._core._public import public
from .._core._timeouts import seconds

if TYPE_CHECKING:
    from datetime import timedelta


@public
class OperationFilter(TypedDict, total=False):
    """What selects operations. All that is given has to hold; ``None`` is as good as not given."""

    id: str | None
    name: str | None  #: exactly this name
    name_glob: str | None  #: a name like this, with ``*``, ``?`` and ``[...]``, as `fnmatch` has them
    status: OperationStatus | Iterable[OperationStatus] | None  #: one of these
    parent_id: str | None  #: right below the operation with this id
    metadata: Mapping[str, Any] | None  #: has all these items, and perhaps others
    min_age: float | timedelta | None  #: runs, or ran, for so many seconds at least
    max_age: float | timedelta | None  #: and for so many at most


class Described(Protocol):
    """What an operation and a snapshot of one have in common."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str | None: ...
    @property
    def status(self) -> OperationStatus: ...
    @property
    def metadata(self) -> Mapping[str, Any]: ...


@final
class Filter:
    """An `OperationFilter` that was looked over.

    Raises:
        TypeError: If there is something in it that no filter knows: rather nothing than too much is
            cancelled because of a misspelt name. Also if an age is no number of seconds.
        ValueError: If a status does not exist, or an age is negative or NaN.
    """

    __slots__ = ("_glob", "_max_age", "_metadata", "_min_age", "_name", "_parent_id", "_statuses", "id")

    def __init__(self, wanted: OperationFilter) -> None:
        unknown = wanted.keys() - OperationFilter.__annotations__.keys()
        if unknown:
            known = ", ".join(OperationFilter.__annotations__)
            raise TypeError(f"no filter for operations: {', '.join(sorted(unknown))} (there are {known})")
        self.id: str | None = wanted.get("id")
        self._name = wanted.get("name")
        self._glob = wanted.get("name_glob")
        self._statuses = _statuses(wanted.get("status"))
        self._parent_id = wanted.get("parent_id")
        self._metadata = dict(wanted.get("metadata") or {})
        self._min_age = seconds(wanted.get("min_age"), "min_age")
        max_age = seconds(wanted.get("max_age"), "max_age")
        self._max_age = inf if max_age is None else max_age

    def matches(self, context: OperationContext) -> bool:
        """Whether *context* is of an operation that is meant."""
        return (
            self.may_match(context)
            and self._parent_id in {None, context.parent_id}
            and self._matches_age(context.duration)
        )

    def may_match(self, described: Described) -> bool:
        """Whether `matches` could still say yes, as far as that is to be had without a snapshot."""
        return (
            self.id in {None, described.id}
            and self._matches_name(described.name)
            and (self._statuses is None or described.status in self._statuses)
            and (not self._metadata or self._matches_metadata(described.metadata))
        )

    def _matches_name(self, name: str | None) -> bool:
        if self._name not in {None, name}:
            return False
        return self._glob is None or (name is not None and fnmatchcase(name, self._glob))

    def _matches_metadata(self, metadata: Mapping[str, Any]) -> bool:
        # What is missing is not None.
        return all(key in metadata and metadata[key] == value for key, value in self._metadata.items())

    def _matches_age(self, age: float | None) -> bool:
        # One that was not entered has no age: it is younger than any.
        return (self._min_age is None or (age is not None and age >= self._min_age)) and (
            age is None or age <= self._max_age
        )


def _statuses(
    wanted: OperationStatus | Iterable[OperationStatus] | None,
) -> frozenset[OperationStatus] | None:
    if wanted is None:
        return None
    return frozenset(map(OperationStatus, [wanted] if isinstance(wanted, str) else wanted))
