"""The block of an operation from entering to leaving: what is opened, in which order, and what comes out."""

from __future__ import annotations

from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from . import _causes, _deadline
from ._block import Block
from ._callbacks import run_all
from ._core._errors import CancelationError, LifecycleError, error_for
from ._core._lifecycle import CANCELLED, COMPLETED, PENDING, RUNNING
from ._core._observers import everywhere
from ._core._report import report
from ._ending import is_own_error, raise_again, settle, tell

if TYPE_CHECKING:
    from ._critical import Sections
    from ._scope import Cancelable
    from ._watch import Watch

Operation = TypeVar("Operation", bound="Cancelable")


async def enter(operation: Operation) -> Operation:
    """Enter the block of *operation*, and return that.

    Raises:
        LifecycleError: If it was entered before.
    """
    if operation._block is not None:
        raise LifecycleError(
            f"{operation!r} was entered already; a Cancelable serves one block, make a new one for each"
        )
    if operation._sources or operation._leaders:
        await _open_watch(operation)
    operation._block = block = open_block(operation)
    try:
        operation._status = RUNNING  # what has no block yet is pending
        if operation._observers or everywhere:
            operation._tell_transition(PENDING)
        if operation._tokens or operation._parents or operation._leaders or operation._followers:
            listen(operation, block)
        if operation._watch is not None:
            await operation._watch.start()
        if "start" in operation._callbacks:
            await run_all(operation._callbacks["start"], operation.context, cleanup=operation._cleanup)
    except BaseException as error:
        await leave(operation, type(error), error, error.__traceback__)
        raise
    return operation


async def leave(  # noqa: C901 (each call would take its time)
    operation: Cancelable,
    exc_type: type[BaseException] | None,
    exc: BaseException | None,
    traceback: TracebackType | None,
) -> bool | None:  # not bool: to type checkers that would mean that blocks may be left quietly
    """Leave the block of *operation*. Tells whether what was raised ends there, or raises what goes on."""
    block = operation._block
    assert block is not None
    raised = exc
    if operation._sections is not None:
        exc = await _end_sections(operation._sections, exc)
    if operation._parents or block.outer:
        operation._keep_above_id()
    left = block.close(exc)
    if operation._watch is not None:
        left = await _end_watch(operation, operation._watch, left)
    stopped = exc is not None and (left is None or is_own_error(operation, left))
    if left is None:
        if stopped and not operation._token._causes:
            operation._settle_stopped()
        previous, operation._status = operation._status, CANCELLED if stopped else COMPLETED  # for good
        if operation._observers or everywhere:
            operation._tell_transition(previous)
    else:
        settle(operation, block, left, stopped)
    if operation._followers or operation._callbacks:
        await _tell_end(operation, left)
    if stopped:
        return _raise_own(operation, exc, left) if operation._raise_on_cancel else True
    return False if left is None else _lets_pass(raised, left)


async def _tell_end(operation: Cancelable, left: BaseException | None) -> None:
    _deadline.tell_followers(operation)  # children that go on have no deadline of a parent that has ended
    await tell(operation, left)


def _raise_own(operation: Cancelable, exc: BaseException | None, left: BaseException | None) -> bool:
    """Raise what its own cancelation ends a block with, unless that is going out already."""
    if not isinstance(left, CancelationError):
        assert operation.cancelation is not None
        raise error_for(operation.cancelation, operation.context) from exc
    return False


def _lets_pass(raised: BaseException | None, left: BaseException) -> bool:
    """Have what is *left* go on, which is what was *raised*, or comes in place of that."""
    if left is not raised:
        raise_again(left)
    return False


def open_block(operation: Cancelable, previous: Block | None = None) -> Block:
    """Open a block; a stream has one for each step, after the *previous* one."""
    block = Block(operation)
    if previous is None:
        operation._entered_at = block.opened_at
    else:
        block.follow_up(previous)
    is_timed = operation._timeout is not None or operation._parents or operation._leaders
    block.open(_deadline.first_deadline(operation, block) if is_timed else inf)
    return block


def listen(operation: Cancelable, block: Block) -> None:
    """Have *block* stopped by what else cancels *operation*, and tell those that go by its deadline."""
    if operation._parents or operation._leaders:
        _causes.listen(operation, block)
        _deadline.follow_deadlines(operation, block)
    elif operation._unless is None:
        block.follow(operation._tokens)
    else:
        hear = _causes.hearing(operation, operation._unless)
        for token in operation._tokens:
            block.listen(token, hear)
    if operation._followers:
        _deadline.tell_followers(operation)


def has_sources(operation: Cancelable) -> bool:
    """Whether *operation* needs tasks to wait in."""
    return bool(operation._sources or (operation._leaders and _causes.all_sources(operation)))


async def _open_watch(operation: Cancelable) -> None:
    sources = _causes.all_sources(operation)
    if sources:
        from ._watch import Watch

        operation._watch = Watch(sources, operation._settle)
        await operation._watch.open()


async def _end_sections(sections: Sections, exc: BaseException | None) -> BaseException | None:
    """Wait for sections that are still open. Returns what goes on: *exc*, or what has come instead."""
    try:
        await sections.wait()
    except BaseException as error:  # an interruption of the task, which no scope can stop
        return error
    return exc


async def _end_watch(operation: Cancelable, watch: Watch, left: BaseException | None) -> BaseException | None:
    """End the sources. If one of them has failed, and nothing else is wrong, its error goes on."""
    operation._watch = None
    left = await watch.close(left)
    failures = watch.failures
    if failures and (left is None or is_own_error(operation, left)):
        left = failures.pop(0)
    report(failures)
    return left
