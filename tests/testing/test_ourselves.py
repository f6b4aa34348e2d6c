"""The sweep over every async function of this package: none of them leaves anything behind."""

from __future__ import annotations

import gc
import time
import inspect
import pkgutil
from collections import Counter
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
from anyio.lowlevel import checkpoint

import hother.cancelable
from hother.cancelable import OperationRegistry
from hother.cancelable.testing import LeakCheck, sweep
from tests.testing.scenarios import SCENARIOS, Scenario, World


def public_modules() -> Iterator[ModuleType]:
    yield hother.cancelable
    for module in pkgutil.walk_packages(hother.cancelable.__path__, "hother.cancelable."):
        if "._" not in module.name:
            try:
                yield import_module(module.name)
            except ModuleNotFoundError as error:  # an optional package
                assert not str(error.name).startswith("hother")  # noqa: PT017


def public_async_functions() -> set[str]:
    """The async functions that users can call, each by the places where it is public."""
    return {
        f"{module.__name__}.{name}"
        for module in public_modules()
        for public in getattr(module, "__all__", ())
        for name in async_names(public, getattr(module, public))
    }


def async_names(name: str, value: Any) -> Iterator[str]:
    if is_async(value):
        yield name
    elif inspect.isclass(value) and not getattr(value, "_is_protocol", False):
        for member, it in inspect.getmembers(value):
            ours = str(getattr(it, "__module__", "")).startswith("hother.")
            if ours and is_async(it) and (not member.startswith("_") or member.endswith("__")):
                yield f"{name}.{member}"


def is_async(value: object) -> bool:
    return inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value)


def same(name: str) -> Any:
    """What *name* names: a function may be public in several places."""
    module = max((it.__name__ for it in public_modules() if name.startswith(f"{it.__name__}.")), key=len)
    value: Any = import_module(module)
    for part in name.removeprefix(f"{module}.").split("."):
        value = getattr(value, part)
    return value


def test_every_async_function_has_a_scenario() -> None:
    """
    Whoever adds one adds a scenario: see tests/testing/scenarios.py.
    """
    covered = {same(name) for scenario in SCENARIOS for name in scenario.covers}

    missing = sorted(name for name in public_async_functions() if same(name) not in covered)

    assert missing == []


def test_async_functions_are_found_wherever_they_are() -> None:
    """
    The test above can fail.
    """
    assert public_async_functions() >= {
        "hother.cancelable.Cancelable.__aenter__",
        "hother.cancelable.CancelationToken.wait",
        "hother.cancelable.asgi.RequestCancelationMiddleware.__call__",
        "hother.cancelable.integrations.fastapi.CancelableWebSocket.receive_text",
        "hother.cancelable.integrations.fastapi.cancelable_dependency",
        "hother.cancelable.with_timeout",
    }


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
async def test_an_interruption_anywhere_leaves_nothing_behind(scenario: Scenario) -> None:
    """
    No task, no open block, no callback, no current operation, no registry entry, and no object.
    """
    world = World()
    await scenario.run(world)
    await sweep(checkpoint)
    before = our_objects()

    with OperationRegistry(history=0) as registry:
        async with LeakCheck():
            number = len(await sweep(partial(scenario.run, world), check=world.check, **scenario.options))

        assert registry.list() == []
    del registry

    assert number
    assert what_is_left(before) == Counter()


def what_is_left(before: Counter[str]) -> Counter[str]:
    """What is there besides; worker threads get a second for the last lines in which they know what they did."""
    patience = time.monotonic() + 1
    while (left := our_objects() - before) and time.monotonic() < patience:
        time.sleep(0.001)
    return left


def our_objects() -> Counter[str]:
    gc.collect()
    return Counter(
        type(thing).__qualname__
        for thing in gc.get_objects()
        if type(thing).__module__.startswith("hother.") and not isinstance(thing, type)
    )
