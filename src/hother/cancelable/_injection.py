"""Put an operation into the arguments of a call, without ever replacing what the caller passed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeAlias, TypeVar

from ._scope import Cancelable

F = TypeVar("F", bound="Callable[..., Any]")
Arguments: TypeAlias = "tuple[tuple[Any, ...], dict[str, Any]]"
Injection: TypeAlias = "Callable[[tuple[Any, ...], dict[str, Any], Cancelable], Arguments]"

_BY_POSITION = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
_VARIADIC = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


def injection(function: Callable[..., Any], parameter: str | None) -> Injection:
    """Make the function that adds an operation to the arguments of *function*, if it declares *parameter*.

    A caller who leaves the parameter out writes the other arguments as if it did not exist.
    """
    parameters = inspect.signature(function).parameters
    declared = parameters.get(parameter) if parameter is not None else None
    if declared is None or declared.kind in _VARIADIC:
        return lambda args, kwargs, _: (args, kwargs)
    if declared.kind is declared.KEYWORD_ONLY:
        return lambda args, kwargs, operation: (args, {declared.name: operation, **kwargs})
    place, places = _place(declared.name, parameters)

    def inject(args: tuple[Any, ...], kwargs: dict[str, Any], operation: Cancelable) -> Arguments:
        was_passed = declared.name in kwargs and declared.kind is not declared.POSITIONAL_ONLY
        if was_passed or (len(args) > place and (isinstance(args[place], Cancelable) or len(args) >= places)):
            return args, kwargs
        if len(args) < place:  # those before it come by name
            return args, {**kwargs, declared.name: operation}
        return (*args[:place], operation, *args[place:]), kwargs

    return inject


def _place(name: str, parameters: Mapping[str, inspect.Parameter]) -> tuple[int, float]:
    """The position of a parameter, and how many arguments by position there can be."""
    by_position = [it.name for it in parameters.values() if it.kind in _BY_POSITION]
    is_open = any(it.kind is it.VAR_POSITIONAL for it in parameters.values())
    return by_position.index(name), float("inf") if is_open else len(by_position)


def wraps_without(function: Callable[..., Any], parameter: str | None) -> Callable[[F], F]:
    """Like `functools.wraps`; but the signature that others read is the callers', without *parameter*."""
    signature = inspect.signature(function)
    kept = [it for it in signature.parameters.values() if it.name != parameter or it.kind in _VARIADIC]

    def decorate(wrapper: F) -> F:
        wraps(function)(wrapper)
        wrapper.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
        return wrapper

    return decorate
