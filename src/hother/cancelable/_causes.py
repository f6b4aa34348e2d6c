"""What an operation listens to, and the policy that may decline what it hears.

The policy is asked about what comes from elsewhere: tokens, sources and parents, and the parents'
deadlines. What is the operation's own (its ``cancel()``, its token, its deadline) is never declined: so
there is always a way to stop it.

An operation that follows others listens to what they listen to, too, each with its own policy: they may not
have been entered, and then hear of nothing themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from ._block import Block, parent_cancelation
from ._core._reasons import Cancelation
from ._core._report import report
from ._core._token import KEPT, Callback
from .sources._source import Source

if TYPE_CHECKING:
    from ._scope import Cancelable

Policy: TypeAlias = "Callable[[Cancelation], bool] | None"


def lineage(operation: Cancelable) -> Iterator[Cancelable]:
    """*operation* itself, those that it follows, those that they follow, and so on."""
    yield operation
    for leader in operation._leaders:
        yield from lineage(leader)


def listen(operation: Cancelable, block: Block) -> None:
    """Have *operation* hear of what should stop it, for as long as *block* is open."""
    for part in lineage(operation):
        if part is not operation:
            block.listen(part._token, operation._settle)
        for token in part._tokens:
            block.listen(token, hearing(operation, part._unless))
        for parent in part._parents:
            if part._unless is not None:
                parent._tell_in_time()  # nothing else tells a policy of the parent's deadline
            block.listen(parent._token, partial(_hear_parent, operation, part._unless, parent))


def all_sources(operation: Cancelable) -> list[tuple[Source, Callback]]:
    """The sources of *operation* and of those that it follows, each with what to do when it fires."""
    found = {
        id(source): (source, hearing(operation, part._unless))
        for part in lineage(operation)
        for source in part._sources
    }
    return list(found.values())


def hearing(operation: Cancelable, unless: Policy) -> Callback:
    """Make the function that cancels *operation*, if the policy does not decline."""
    return operation._settle if unless is None else partial(_hear, operation, unless)


def pending(operation: Cancelable) -> Cancelation | None:
    """Why a block will be cancelled as soon as it is entered."""
    for part in lineage(operation):
        if part is not operation and part.cancelation is not None:
            return part.cancelation
        for cause in _causes_of(part):
            if not _declines(part._unless, cause):
                return cause
    return None


def _causes_of(operation: Cancelable) -> Iterator[Cancelation]:
    """What there is already that cancels a block of *operation*."""
    for token in operation._tokens:
        yield from token.causes
    for parent in operation._parents:
        yield from (parent_cancelation(parent._name, cause) for cause in parent.causes)


def declined(operation: Cancelable) -> tuple[Cancelation, ...]:
    """What policies of *operation* have declined, and none of them has let through."""
    kept = {id(cause): cause for cause, _ in _declined(operation)}
    for cause in operation._token.causes:
        kept.pop(id(cause), None)
    return tuple(kept.values())[:KEPT]


def _hear(operation: Cancelable, unless: Policy, cause: Cancelation) -> None:
    if any(known is cause for known in _known(operation, unless)):
        return
    if _declines(unless, cause):
        _keep_declined(operation, unless, cause)
    else:
        operation._settle(cause)


def _hear_parent(operation: Cancelable, unless: Policy, parent: Cancelable, cause: Cancelation) -> None:
    records = (*operation._token.causes, *(known for known, _ in _declined(operation)))
    same = (known for known in records if known.cause is cause and known.by == parent._name)
    _hear(operation, unless, next(same, None) or parent_cancelation(parent._name, cause))


def _known(operation: Cancelable, unless: Policy) -> tuple[Cancelation, ...]:
    """What need not be heard again: what has cancelled *operation*, and what this policy has declined."""
    by_policy = (cause for cause, policy in _declined(operation) if policy is unless)
    return (*operation._token.causes, *by_policy)


def _declines(unless: Policy, cause: Cancelation) -> bool:
    try:
        return unless is not None and bool(unless(cause))
    except Exception as error:  # better stopped once too often than never
        report([error])
        return False


def _declined(operation: Cancelable) -> list[tuple[Cancelation, Policy]]:
    # Made when first needed, by whichever thread is first.
    kept: list[tuple[Cancelation, Policy]] = operation.__dict__.setdefault("_declined", [])
    return kept


def _keep_declined(operation: Cancelable, unless: Policy, cause: Cancelation) -> None:
    kept = _declined(operation)
    if sum(policy is unless for _, policy in kept) < KEPT:
        kept.append((cause, unless))
