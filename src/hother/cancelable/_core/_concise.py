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


def concise_cancel(scope_type: type[CancelScope]) -> Callable[[CancelScope, str], None]:
    """Return AnyIO's own ``cancel()`` for a class of scopes, as a function of a scope and a reason.

    But what it asks for the running task tells it no more than the name. Where it asks for none, or wants to
    know more of it, the method is returned as it is.
    """
    cancel: Any = scope_type.cancel
    if not (isinstance(cancel, FunctionType) and "current_task" in cancel.__code__.co_names):
        return cancel  # type: ignore[no-any-return]
    names = {**cancel.__globals__, "current_task": lambda: "a trial"}  # whether a task runs here or not
    code = cancel.__code__.replace()  # of its own: CPython notes in it where the names were found
    concise = FunctionType(code, names, cancel.__name__, cancel.__defaults__, cancel.__closure__)
    if not _works(concise, scope_type):
        return cancel
    names["current_task"] = _name_of_running_task
    return concise


def _name_of_running_task() -> str | None:
    task = current_task()
    return None if task is None else task.get_name()


def _works(cancel: Callable[[CancelScope, str], None], scope_type: type[CancelScope]) -> bool:
    scope = scope_type()
    try:
        cancel(scope, "nobody is in this scope")
    except Exception:
        return False
    return scope.cancel_called
