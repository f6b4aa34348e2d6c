"""What `_late_scope` has to know of Trio, to put a scope in where it could have been entered.

Trio gives each scope that is open a status. Statuses form a tree: from a task's innermost one outwards, and
from each to those that are directly in it. What is put in late takes over either the status that is
directly in its place, or the task. Tasks, nurseries and threads that were started inside meanwhile have
statuses inside of that one, or ask the task.

Trio has no public way to do that either, so that here, too, it is relied on after a look and a trial.
"""

from __future__ import annotations

from math import inf
from typing import Any
from weakref import WeakKeyDictionary

import trio
from trio.lowlevel import current_task, current_trio_token, enable_ki_protection

__all__ = ("current_trio_token", "looks_as_known", "put_in", "this_task")

_STATUS = {"_scope", "effectively_cancelled", "_parent", "_children", "_tasks", "abandoned_by_misnesting"}
_SCOPE = {
    *("_cancel_status", "_has_been_entered", "_registered_deadline", "_cancel_called", "_cancel_reason"),
    *("cancelled_caught", "_relative_deadline", "_deadline", "_shield"),
}

# Of what was put in: a place may be noted several times.
_serials: WeakKeyDictionary[Any, int] = WeakKeyDictionary()


def this_task() -> Any:
    """Return the task that runs here, or ``None``."""
    try:
        return current_task()
    except RuntimeError:  # no event loop runs in this thread
        return None


def looks_as_known(task: Any) -> bool:
    """Whether scopes and their statuses have the parts that we know of, and no others."""
    return _parts_of(task._cancel_status) == _STATUS and _parts_of(trio.CancelScope()) == _SCOPE


def _parts_of(thing: Any) -> set[str]:
    return set(thing.__slots__) - {"__weakref__"}


@enable_ki_protection
def put_in(task: Any, around: Any, serial: int) -> trio.CancelScope:
    """Do what entering a scope would have done at a place and a time."""
    outside, inside = _neighbours(task, _where_it_is_now(task, around), serial)
    scope: Any = trio.CancelScope()
    scope._has_been_entered = True
    status = scope._cancel_status = type(around)(scope=scope, parent=outside)
    _serials[status] = serial
    if inside is None:
        task._activate_cancel_status(status)
    else:
        inside.parent = status
    return scope  # type: ignore[no-any-return]


def _where_it_is_now(task: Any, around: Any) -> Any:
    status = task._cancel_status
    while status is not around:
        if status is None:  # `TaskStatus.started()` has moved all that the task does into another nursery
            return task.parent_nursery.cancel_scope._cancel_status
        status = status._parent
    return around


def _neighbours(task: Any, around: Any, serial: int) -> tuple[Any, Any]:
    """Return what will be around the scope, and what will be in it, if anything."""
    outside, inside = task._cancel_status, None
    while outside is not around and _serials.get(outside, inf) > serial:
        outside, inside = outside._parent, outside
    return outside, inside
