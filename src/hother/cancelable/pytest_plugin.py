"""The pytest plugin: fixtures for what is in `hother.cancelable.testing`.

It is there once the package is installed, and does nothing until a test asks for one of its fixtures:
nothing is imported, hooked or changed. (``-p no:hother_cancelable`` keeps it out altogether.)

With ``cancelable_virtual_clock = true`` in pytest's configuration, tests that AnyIO's plugin runs have
a clock that jumps, but for those marked ``cancelable_real_clock``. An ``anyio_backend`` fixture of
your own goes before that: let it return ``virtual_backend(...)`` where you like.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from functools import wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .testing import Peer, Recorder, StreamSimulator

__all__ = (
    "cancelable_leak_check",
    "cancelable_peer",
    "cancelable_recorder",
    "cancelable_stream_simulator",
    "cancelable_sweep",
)

_VIRTUAL_CLOCK = "cancelable_virtual_clock"
_REAL_CLOCK = "cancelable_real_clock"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the option."""
    parser.addini(_VIRTUAL_CLOCK, "AnyIO's tests run on a clock that jumps", type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker; and put AnyIO's backends on the jumping clock, if that is wanted."""
    config.addinivalue_line(
        "markers", f"{_REAL_CLOCK}: runs on the real clock, whatever {_VIRTUAL_CLOCK} says"
    )
    if config.getini(_VIRTUAL_CLOCK):
        config.pluginmanager.register(_virtual_backends(), "hother_cancelable_backends")


def _virtual_backends() -> object:
    """Make a plugin that overrides AnyIO's fixture, and that a fixture of the project's own overrides."""
    from anyio import get_available_backends

    from .testing import virtual_backend

    class VirtualBackends:
        @pytest.fixture(params=get_available_backends())
        def anyio_backend(self, request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
            """The backend that an async test runs on, with its clock."""
            if request.node.get_closest_marker(_REAL_CLOCK):
                return request.param, {}
            return virtual_backend(request.param)

    return VirtualBackends()


@pytest.fixture
def cancelable_recorder() -> Generator[Recorder, None, None]:
    """A `Recorder` that watches all operations while the test runs."""
    from .testing import Recorder

    with Recorder() as recorder:
        yield recorder


@pytest.fixture
def cancelable_sweep() -> Callable[..., Any]:
    """The function `sweep`: cancel at every checkpoint."""
    from .testing import sweep

    return sweep


@pytest.fixture
def cancelable_peer() -> type[Peer]:
    """The class `Peer`: a client and a server for an ASGI application."""
    from .testing import Peer

    return Peer


@pytest.fixture
def cancelable_stream_simulator() -> type[StreamSimulator[Any]]:
    """The class `StreamSimulator`: a source of items with the moods of real ones."""
    from .testing import StreamSimulator

    return StreamSimulator


@pytest.fixture
def cancelable_leak_check(request: pytest.FixtureRequest) -> Generator[None, None, None]:
    """The test must leave nothing behind: see `LeakCheck`. Of tasks only async tests are asked.

    Other fixtures of the test do not count, whether they come before or after this one.
    """
    node = request.node
    test: Callable[..., Any] = node.obj
    node.obj = (_leaving_nothing_async if iscoroutinefunction(test) else _leaving_nothing)(test)
    yield
    node.obj = test


def _leaving_nothing(test: Callable[..., Any]) -> Callable[..., None]:
    from .testing import LeakCheck

    @wraps(test)
    def watched(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        with LeakCheck():
            test(*args, **kwargs)

    return watched


def _leaving_nothing_async(test: Callable[..., Any]) -> Callable[..., Awaitable[None]]:
    from .testing import LeakCheck

    @wraps(test)
    async def watched(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        async with LeakCheck():
            await test(*args, **kwargs)

    return watched
