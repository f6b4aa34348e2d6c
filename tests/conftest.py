"""Every async test runs on asyncio and on Trio, on a clock that jumps.

The exceptions are marked:

* ``@pytest.mark.real_time``: the real clock, for tests that need threads, sockets or signals;
* ``@pytest.mark.uvloop``: the real clock too, and uvloop as a third backend;
* ``@pytest.mark.only_on("trio")``: that backend only.

Async tests must leave no task behind and no error that nobody looked at.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Awaitable, Callable, Generator
from functools import wraps
from importlib.util import find_spec
from inspect import iscoroutinefunction
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, settings

from hother.cancelable.testing import virtual_backend

# The fixture `anyio_backend` is the same for all examples of a test, and that is right: it only says
# where each of them runs. Every example gets an event loop of its own.
settings.register_profile(
    "default", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.register_profile(
    "ci", settings.get_profile("default"), derandomize=True, database=None, print_blob=True
)
settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_collection_finish() -> None:
    """Put all that the imports made out of the garbage collector's sight: it runs after each test."""
    gc.collect()
    gc.freeze()


def pytest_runtest_logfinish() -> None:
    """Do the same with what pytest keeps of each test, now that its event loop and tasks are gone."""
    gc.collect()
    gc.freeze()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each async test once per backend."""
    if "anyio_backend" not in metafunc.fixturenames:
        return
    backends: tuple[str, ...] = ("asyncio", "trio")
    if only_on := metafunc.definition.get_closest_marker("only_on"):
        backends = only_on.args
    if metafunc.definition.get_closest_marker("uvloop"):
        backends += ("uvloop",)
    metafunc.parametrize("anyio_backend", [_backend(name) for name in backends], indirect=True)


def _backend(name: str) -> Any:
    missing = find_spec(name) is None
    return pytest.param(name, marks=pytest.mark.skipif(missing, reason=f"{name} is not installed"))


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """
    The backend an async test runs on, with its clock.
    """
    if request.param == "uvloop":
        return "asyncio", {"use_uvloop": True}
    if {"real_time", "uvloop"} & {mark.name for mark in request.node.iter_markers()}:
        return request.param, {}
    return virtual_backend(request.param)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Watch what async tests leave behind."""
    __tracebackhide__ = True
    if iscoroutinefunction(pyfuncitem.obj):
        pyfuncitem.obj = _leaving_nothing(pyfuncitem.obj)
    return (yield)


def _leaving_nothing(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @wraps(test)
    async def watched(**kwargs: Any) -> None:
        __tracebackhide__ = True
        before = {task.id for task in anyio.get_running_tasks()}
        await test(**kwargs)
        # A failed task complains when it is collected, and AnyIO's runner then fails the test.
        gc.collect()
        if _names_of_tasks(besides=before):
            # Some may just be about to end, those that close forgotten generators for one.
            await anyio.wait_all_tasks_blocked()
        assert not _names_of_tasks(besides=before), "the test left tasks behind"

    return watched


def _names_of_tasks(*, besides: set[int]) -> list[str | None]:
    return [task.name for task in anyio.get_running_tasks() if task.id not in besides]
