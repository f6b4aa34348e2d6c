"""Functions as cancelable operations: a new operation for each call.

Each decorator takes coroutine functions and async generator functions, methods included. A decorated
async generator function returns a `CancelableAsyncIterator`, whose steps are the operation. A function
that wants the operation declares a parameter for it; callers leave that out.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast, overload

from ._core._public import public
from ._core._timeouts import seconds
from ._core._token import CancelationToken
from ._injection import Arguments, injection, wraps_without
from ._iteration import CancelableAsyncIterator
from ._running import has_sources
from ._scope import Cancelable, current_operation
from .streams import own_stream

if TYPE_CHECKING:
    from datetime import timedelta
    from typing import Concatenate

    from typing_extensions import ParamSpec

    P = ParamSpec("P")

R = TypeVar("R")
S = TypeVar("S")

__all__ = (
    "cancelable",
    "cancelable_combine",
    "cancelable_method",
    "cancelable_with_condition",
    "cancelable_with_signal",
    "cancelable_with_token",
    "with_cancelable",
    "with_current_operation",
    "with_timeout",
)


class _Nobody:
    """Only a parameter that takes anything takes this: a type checker then leaves the function alone."""


if TYPE_CHECKING:
    F = TypeVar("F", bound=Callable[Concatenate[_Nobody, ...], Any])
    M = TypeVar("M", bound=Callable[Concatenate[Any, _Nobody, ...], Any])


class Decorator(Protocol):
    """A decorator after which callers need not pass the operation that it injects."""

    @overload
    def __call__(self, function: F, /) -> F: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Cancelable, P], Coroutine[Any, Any, R]], /
    ) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Cancelable, P], AsyncIterator[R]], /
    ) -> Callable[P, CancelableAsyncIterator[R]]: ...
    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(
        self, function: Callable[P, AsyncIterator[R]], /
    ) -> Callable[P, CancelableAsyncIterator[R]]: ...


class MethodDecorator(Protocol):
    """A decorator after which callers of a method need not pass the operation that it injects."""

    @overload
    def __call__(self, function: M, /) -> M: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[S, Cancelable, P], Coroutine[Any, Any, R]], /
    ) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[S, Cancelable, P], AsyncIterator[R]], /
    ) -> Callable[Concatenate[S, P], CancelableAsyncIterator[R]]: ...
    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(
        self, function: Callable[P, AsyncIterator[R]], /
    ) -> Callable[P, CancelableAsyncIterator[R]]: ...


@overload
def cancelable(timeout: F, /) -> F: ...
@overload
def cancelable(
    timeout: Callable[Concatenate[Cancelable, P], Coroutine[Any, Any, R]], /
) -> Callable[P, Coroutine[Any, Any, R]]: ...
@overload
def cancelable(
    timeout: Callable[Concatenate[Cancelable, P], AsyncIterator[R]], /
) -> Callable[P, CancelableAsyncIterator[R]]: ...
@overload
def cancelable(timeout: Callable[P, Coroutine[Any, Any, R]], /) -> Callable[P, Coroutine[Any, Any, R]]: ...
@overload
def cancelable(timeout: Callable[P, AsyncIterator[R]], /) -> Callable[P, CancelableAsyncIterator[R]]: ...
@overload
def cancelable(
    timeout: float | timedelta | None = None,
    *,
    name: str | None = None,
    inject_param: str | None = "cancelable",
) -> Decorator: ...
@public
def cancelable(
    timeout: Any = None, *, name: str | None = None, inject_param: str | None = "cancelable"
) -> Any:
    """Make each call of a function a cancelable operation. With or without parentheses.

    ::

        @cancelable(timeout=30)
        async def build(report: Report, cancelable: Cancelable) -> None:
            await cancelable.report_progress("begun")

        await build(report)

    Args:
        timeout: How long a call may take, in seconds.
        name: What to call the operations; the function's name by default.
        inject_param: The parameter that gets the operation, if the function declares it and the
            caller passes nothing for it. A `Cancelable` that is passed by position counts as passed.
            Type checkers see that callers leave it out if it is the first one, or has a default.

    Raises:
        TypeError: If what is decorated is neither a coroutine function nor an async generator function.
        ValueError: If *timeout* is negative or NaN.
    """
    if callable(timeout):
        return _decorate(timeout, lambda called: Cancelable(name=called), name, inject_param, _function_name)
    limit = seconds(timeout)  # complains where the mistake is
    return _decorator(lambda called: Cancelable(timeout=limit, name=called), name, inject_param)


@overload
def cancelable_method(timeout: M, /) -> M: ...
@overload
def cancelable_method(
    timeout: Callable[Concatenate[S, Cancelable, P], Coroutine[Any, Any, R]], /
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]: ...
@overload
def cancelable_method(
    timeout: Callable[Concatenate[S, Cancelable, P], AsyncIterator[R]], /
) -> Callable[Concatenate[S, P], CancelableAsyncIterator[R]]: ...
@overload
def cancelable_method(
    timeout: Callable[P, Coroutine[Any, Any, R]], /
) -> Callable[P, Coroutine[Any, Any, R]]: ...
@overload
def cancelable_method(
    timeout: Callable[P, AsyncIterator[R]], /
) -> Callable[P, CancelableAsyncIterator[R]]: ...
@overload
def cancelable_method(
    timeout: float | timedelta | None = None,
    *,
    name: str | None = None,
    inject_param: str | None = "cancelable",
) -> MethodDecorator: ...
@public
def cancelable_method(
    timeout: Any = None, *, name: str | None = None, inject_param: str | None = "cancelable"
) -> Any:
    """Make each call of a method a cancelable operation: `cancelable`, and the class is in its name.

    Args:
        timeout: How long a call may take, in seconds.
        name: What to call the operations; ``Class.method`` by default.
        inject_param: The parameter that gets the operation: see `cancelable`.

    Raises:
        TypeError: If what is decorated is neither a coroutine function nor an async generator function.
        ValueError: If *timeout* is negative or NaN.
    """
    if callable(timeout):
        return _decorate(timeout, lambda called: Cancelable(name=called), name, inject_param, _method_name)
    limit = seconds(timeout)
    return _decorator(lambda called: Cancelable(timeout=limit, name=called), name, inject_param, _method_name)


@public
def cancelable_with_token(
    token: CancelationToken, *, name: str | None = None, inject_param: str | None = "cancelable"
) -> Decorator:
    """Make each call of a function an operation that *token* cancels.

    Args:
        token: What cancels all the calls.
        name: What to call the operations; the function's name by default.
        inject_param: The parameter that gets the operation: see `cancelable`.

    Raises:
        TypeError: If *token* is no token.
    """
    Cancelable.with_token(token)  # complains where the mistake is
    return _decorator(lambda called: Cancelable.with_token(token, name=called), name, inject_param)


@public
def cancelable_with_signal(
    *signals: int, name: str | None = None, inject_param: str | None = "cancelable"
) -> Decorator:
    """Make each call of a function an operation that is cancelled when the process receives a signal.

    See `SignalSource`: calls have to be made in the main thread. Only coroutine functions can be decorated: a
    signal is waited for in a task, and none may live from step to step of a stream.

    Args:
        signals: At least one, like ``signal.SIGTERM``.
        name: What to call the operations; the function's name by default.
        inject_param: The parameter that gets the operation: see `cancelable`.

    Raises:
        TypeError: If one of *signals* is not a number, or what is decorated no coroutine function.
        ValueError: If there is none, or one cannot be caught here.
    """
    Cancelable.with_signal(*signals)  # complains where the mistake is
    return _decorator(lambda called: Cancelable.with_signal(*signals, name=called), name, inject_param)


@public
def cancelable_with_condition(
    predicate: Callable[[], bool | Awaitable[bool]],
    interval: float | timedelta = 0.1,
    *,
    name: str | None = None,
    inject_param: str | None = "cancelable",
) -> Decorator:
    """Make each call of a function an operation that is cancelled once *predicate* returns true.

    See `ConditionSource`. Only coroutine functions can be decorated: see `cancelable_with_signal`.

    Args:
        predicate: What to ask. It must not block; it may be a coroutine function.
        interval: Pause after each answer, in seconds.
        name: What to call the operations; the function's name by default.
        inject_param: The parameter that gets the operation: see `cancelable`.

    Raises:
        TypeError: If *predicate* cannot be called, *interval* is no time, or what is decorated is no
            coroutine function.
        ValueError: If *interval* is not positive.
    """
    Cancelable.with_condition(predicate, interval)
    return _decorator(
        lambda called: Cancelable.with_condition(predicate, interval, name=called), name, inject_param
    )


@public
def cancelable_combine(
    *operations: Cancelable, name: str | None = None, inject_param: str | None = "cancelable"
) -> Decorator:
    """Make each call of a function an operation that ends as soon as any of *operations* would.

    See `Cancelable.combine`, which makes a new one for each call. None of them needs to be entered.

    Args:
        operations: What to combine.
        name: What to call the new ones; the function's name by default.
        inject_param: The parameter that gets the operation: see `cancelable`.

    Raises:
        TypeError: If one of *operations* is not a `Cancelable`.
    """
    Cancelable().combine(*operations)
    return _decorator(lambda called: Cancelable(name=called).combine(*operations), name, inject_param)


@public
def with_cancelable(operation: Cancelable, *, inject_param: str | None = "cancelable") -> Decorator:
    """Make each call of a function a part of *operation*, as `Cancelable.wrap` does.

    Called in the block of *operation*, the function runs there; elsewhere it gets a new operation that
    follows it.

    Args:
        operation: The operation.
        inject_param: The parameter that gets the operation: see `cancelable`.

    Raises:
        TypeError: If *operation* is not a `Cancelable`.
    """
    if not isinstance(operation, Cancelable):
        raise TypeError(f"with_cancelable takes a Cancelable, got {operation!r}")

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        inject = injection(_checked(function), inject_param)
        wraps_function = wraps_without(function, inject_param)
        if inspect.isasyncgenfunction(function):

            @wraps_function
            def iterate(*args: Any, **kwargs: Any) -> CancelableAsyncIterator[Any]:
                args, kwargs = inject(args, kwargs, operation)
                return CancelableAsyncIterator(function(*args, **kwargs), operation)

            return iterate

        async def call(*args: Any, **kwargs: Any) -> Any:
            current = current_operation()  # *operation*, or what follows it
            args, kwargs = inject(args, kwargs, operation if current is None else current)
            return await function(*args, **kwargs)

        return wraps_function(operation.wrap(call))

    return cast("Decorator", decorate)


@overload
def with_current_operation(
    function: Callable[Concatenate[Cancelable, P], R], /, *, inject_param: str = "operation"
) -> Callable[P, R]: ...
@overload
def with_current_operation(
    function: Callable[P, R], /, *, inject_param: str = "operation"
) -> Callable[P, R]: ...
@overload
def with_current_operation(
    *, inject_param: str = "operation"
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
@public
def with_current_operation(
    function: Callable[..., Any] | None = None, /, *, inject_param: str = "operation"
) -> Any:
    """Give a function the current operation of its caller. With or without parentheses.

    Plain functions, coroutine functions and generator functions may be decorated. Where there is no
    current operation, nothing is passed.

    Args:
        function: What to decorate.
        inject_param: The parameter that gets the operation, if the function declares it and the
            caller passes nothing for it.
    """
    if function is None:
        return partial(with_current_operation, inject_param=inject_param)
    inject = injection(function, inject_param)

    def arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        operation = current_operation()
        return (args, kwargs) if operation is None else inject(args, kwargs, operation)

    if not inspect.iscoroutinefunction(function):

        @wraps_without(function, inject_param)
        def call(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = arguments(args, kwargs)
            return function(*args, **kwargs)

        return call

    @wraps_without(function, inject_param)
    async def call_async(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = arguments(args, kwargs)
        return await function(*args, **kwargs)

    return call_async


@public
async def with_timeout(timeout: float | timedelta | None, coroutine: Awaitable[R]) -> R:
    """Await *coroutine*, as an operation that may take *timeout* seconds.

    Raises:
        TimeoutCancelation: If it took longer.
        TypeError: If *timeout* is not a time.
        ValueError: If *timeout* is negative or NaN.
    """
    try:
        operation = Cancelable(timeout=timeout, name=getattr(coroutine, "__name__", None))
    except BaseException:
        if inspect.iscoroutine(coroutine):
            coroutine.close()  # nobody will await it
        raise
    async with operation:
        return await coroutine


def _decorator(
    make: Callable[[str], Cancelable],
    name: str | None,
    inject_param: str | None,
    name_of: Callable[..., str] | None = None,
) -> Decorator:
    def decorate(function: Callable[..., Any]) -> Any:
        return _decorate(function, make, name, inject_param, name_of or _function_name)

    return cast("Decorator", decorate)


def _decorate(
    function: Callable[..., Any],
    make: Callable[[str], Cancelable],
    name: str | None,
    inject_param: str | None,
    name_of: Callable[..., str],
) -> Callable[..., Any]:
    """Wrap *function*: each call gets an operation that *make* makes, given its name."""
    inject = injection(_checked(function), inject_param)
    wraps_function = wraps_without(function, inject_param)
    if inspect.isasyncgenfunction(function):
        if has_sources(make("")):  # they wait in tasks, and no task may live from step to step
            raise TypeError(
                f"sources wait only in a block: enter one, and iterate over {function!r} inside of it"
            )

        @wraps_function
        def iterate(*args: Any, **kwargs: Any) -> CancelableAsyncIterator[Any]:
            operation = make(name or name_of(function, *args))
            args, kwargs = inject(args, kwargs, operation)
            return own_stream(function(*args, **kwargs), operation)

        return iterate

    @wraps_function
    async def call(*args: Any, **kwargs: Any) -> Any:
        operation = make(name or name_of(function, *args))
        args, kwargs = inject(args, kwargs, operation)
        async with operation:
            return await function(*args, **kwargs)

    return call


def _checked(function: Any) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return function  # type: ignore[no-any-return]
    raise TypeError(
        f"only coroutine functions and async generator functions can be made cancelable, got {function!r}"
    )


def _function_name(function: Any, *_args: object) -> str:
    return getattr(function, "__name__", None) or repr(function)


def _method_name(function: Any, *args: Any) -> str:
    owner = args[0] if args and isinstance(args[0], type) else type(args[0]) if args else None
    name = _function_name(function)
    return name if owner is None else f"{owner.__name__}.{name}"
