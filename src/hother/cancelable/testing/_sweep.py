"""Cancel at every checkpoint: run a function again and again, interrupted at its 1st, 2nd, ... wait."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias, get_args

from anyio.lowlevel import current_token

from .._core._errors import leaves
from ._attempt import Attempt, NeverEndsError
from ._checkpoint import Checkpoint, Interruption

Errors: TypeAlias = "type[Exception] | tuple[type[Exception], ...]"


class SweepError(AssertionError):
    """What was swept does not stand an interruption; the message says which one, and what is wrong.

    If an error of the function or of the check is behind it, that is its ``__cause__``.
    """

    def __init__(self, problem: str, checkpoint: Checkpoint | None) -> None:
        super().__init__(problem, checkpoint)
        self.problem = problem  #: what is wrong
        self.checkpoint = checkpoint  #: where it was interrupted; ``None`` if it is wrong without that

    def __str__(self) -> str:
        return f"{self.problem}\n{self.checkpoint or 'It was not interrupted.'}"


async def sweep(
    function: Callable[[], Awaitable[object]],
    *,
    check: Callable[[], object] | None = None,
    how: Interruption | Iterable[Interruption] | None = None,
    cancel: Callable[[], object] | None = None,
    error: Callable[[], Exception] = OSError,
    raises: Errors = (),
    limit: int = 1000,
) -> list[Checkpoint]:
    """Run *function* again and again, interrupted at its 1st, 2nd, ... checkpoint, until it gets through.

    ::

        await sweep(transfer, check=lambda: accounts.are_balanced)

    A checkpoint is where the function, or a task that it started, really waits, if only for its turn.
    Each run is in a task of its own, and has to

    * end (it is given up after 10,000 more waits), and let the cancelation through: neither swallow it
      nor put another error in its place;
    * leave nothing behind: no task, no operation whose block was not left;
    * leave the world such that *check* holds.

    A cancelation comes as the code begins to wait. It also strikes where it cannot interrupt (in a
    shielded section, say), and takes effect later then, as any other. Which of several tasks makes its
    step first is up to the backend; on Trio that is random.

    Args:
        function: A coroutine function without arguments. It makes everything anew that it uses up.
        check: Called after each run, those that were not interrupted included: to raise
            ``AssertionError`` if something is wrong. It may be async.
        how: The ways to interrupt it, one after the other. ``"scope"``: cancel an AnyIO scope around
            it; ``"operation"``: cancel a `Cancelable` around it; ``"native"``: ``Task.cancel()``, on
            asyncio; ``"error"``: the wait fails with *error*, if it is for something that can fail, in
            the function's own task (the end of a task group's tasks cannot). By default
            all but the last, as far as the backend has them.
        cancel: A way of your own, instead: called where the code waits, in the event loop.
        error: What to raise with ``how="error"``: called for each run.
        raises: What the function may raise, interrupted or not, besides the backend's cancelled
            exception and *error*. Errors in exception groups count each for itself.
        limit: How many checkpoints there may be. A function that never ends has no last one.

    Returns:
        The checkpoints, in the order in which they were reached.

    Raises:
        SweepError: If a run does not stand its interruption; or if the limit was reached.
        ValueError: If *how* names a way that there is not, here.
    """
    checkpoints: list[Checkpoint] = []
    for way in (None,) if cancel is not None else _ways(how):
        number, reached = 0, True
        while reached:
            number += 1
            if number > limit:
                raise SweepError(f"{_name(function)} has more than {limit} checkpoints: does it end?", None)
            attempt = Attempt(function, number, way, cancel, error() if way == "error" else None)
            await attempt.run()
            _judge(attempt, _name(function), raises)
            await _check(attempt, _name(function), check)
            if attempt.checkpoint is not None:
                checkpoints.append(attempt.checkpoint)
            reached = attempt.reached
    return checkpoints


def _ways(how: Interruption | Iterable[Interruption] | None) -> tuple[Interruption, ...]:
    is_asyncio = hasattr(current_token().native_token, "call_soon_threadsafe")
    if how is None:
        return ("scope", "operation", "native") if is_asyncio else ("scope", "operation")
    ways: tuple[Interruption, ...] = (how,) if isinstance(how, str) else tuple(how)
    for way in ways:
        if way not in get_args(Interruption):
            raise ValueError(f"how must be some of {', '.join(get_args(Interruption))}; got {way!r}")
        if way == "native" and not is_asyncio:
            raise ValueError('only asyncio has a native Task.cancel(): how="native" is not for Trio')
    return ways


def _judge(attempt: Attempt, name: str, raises: Errors) -> None:
    raised = attempt.raised
    if attempt.failure is not None:
        problem = f"cancelling {name} raised {attempt.failure!r}"
        raise SweepError(problem, attempt.checkpoint) from attempt.failure
    if isinstance(raised, NeverEndsError):
        raise SweepError(f"{name} goes on for ever after it was interrupted", attempt.checkpoint)
    if raised is not None and not _may_raise(attempt, raised, raises):
        what = "raised" if attempt.checkpoint is None else "was interrupted, and raised"
        raise SweepError(f"{name} {what} {raised!r}", attempt.checkpoint) from raised
    if attempt.was_told and raised is None and not attempt.was_cancelled:
        raise SweepError(f"{name} swallowed the cancelation, and returned", attempt.checkpoint)
    if attempt.left:
        raise SweepError(f"{name} left behind {'; '.join(attempt.left)}", attempt.checkpoint)


def _may_raise(attempt: Attempt, raised: Exception, raises: Errors) -> bool:
    return all(leaf is attempt.error or isinstance(leaf, raises) for leaf in leaves(raised))


async def _check(attempt: Attempt, name: str, check: Callable[[], object] | None) -> None:
    if check is None:
        return
    try:
        answer = check()
        if inspect.isawaitable(answer):
            await answer
    except Exception as error:
        raise SweepError(f"after {name}, the check failed: {error!r}", attempt.checkpoint) from error


def _name(function: object) -> str:
    function = getattr(function, "func", function)  # of a partial
    return getattr(function, "__qualname__", None) or repr(function)
