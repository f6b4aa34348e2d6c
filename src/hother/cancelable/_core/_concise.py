"""AnyIO's cancel on asyncio, in fewer words.

It tells each task that it interrupts by whom, and for that puts the running task into words: with its
coroutine, where that is, and what is called when it ends. That is a quarter of all that happens until the
interrupted task has ended; and of ten thousand that one token cancels, each is told the same again. The name
of the task will do.
"""

from __future__ import annotations

from asyncio import current_task
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anyio import CancelScope


# All that AnyIO's method says, but for its arguments: of one that says more, nobody knows what it wants.
_KNOWN = frozenset(
    {
        "_cancel_called",
        "_cancel_reason",
        "_deliver_cancellation",  # spelling: theirs
        "_host_task",
        "_timeout_handle",
        "cancel",
        "current_task",
        "id",
    }
)


def concise_cancel(scope_type: type[CancelScope]) -> Callable[[CancelScope, str], None] | None:
    """Return AnyIO's own ``cancel()`` for a class of scopes, as a function of a scope and a reason.

    But what it asks for the running task tells it no more than the name.

    Returns:
        ``None`` where the method is not the one that is known: it is another release's, or somebody has put
        something in its place. Whoever does so later is not called.
    """
    cancel: Any = vars(scope_type).get("cancel")
    if type(cancel) is not FunctionType or not _KNOWN.issuperset(cancel.__code__.co_names):
        return None
    names = dict(cancel.__globals__)
    if names.get("current_task") is not current_task or names["__name__"] != scope_type.__module__:
        return None
    code = cancel.__code__.replace()  # of its own: CPython notes in it where the names were found
    concise = FunctionType(code, names, cancel.__name__, cancel.__defaults__, cancel.__closure__)
    if not _works(concise, scope_type, names):
        return None
    names["current_task"] = _name_of_running_task
    return concise


def _name_of_running_task() -> str | None:
    task = current_task()
    try:
        return None if task is None else repr(str(task.get_name()))
    except Exception:  # of a task of another make; and the scope would be cancelled, and nobody interrupted
        return "a task"


def _works(cancel: Callable[[CancelScope, str], None], scope_type: Any, names: dict[str, Any]) -> bool:
    """Whether it asks for the task but to say who it is, tried on a scope that nobody is in."""
    asked: list[str] = []
    delivered: list[tuple[Any, ...]] = []

    def somebody() -> str:
        asked.append("who")
        return "somebody"

    def deliver(*args: Any) -> None:
        delivered.append(args)

    names["current_task"] = somebody
    members = {"__slots__": (), "_deliver_cancellation": deliver}  # spelling: theirs
    try:
        scope = type("Trial", (scope_type,), members)()
        scope._host_task = object()
        cancel(scope, "a trial")
        says_it = scope._cancel_reason.endswith(" by somebody; reason: a trial")
    except Exception:
        return False
    return says_it and scope.cancel_called and asked == ["who"] and delivered == [(scope, scope)]
