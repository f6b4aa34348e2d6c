"""Real servers, real sockets, real time.

A test module names its application, ``APP = "tests.servers.bare_app:app"``, and its tests ask for:

* ``server``: a server that runs it, shared by the module; each test runs once per kind of server;
* ``start_server``: a function that starts one for this test alone, to shut it down for example;
* ``key``: a name for this test's request in what the application records.

A test for some kinds only says so:
``@pytest.mark.parametrize("server_kind", ["hypercorn-trio"], indirect=True)``.

A traceback in a server's log fails the test, unless it is marked ``allow_traceback``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from tests.servers.child import KINDS, WEBSOCKET_KINDS
from tests.servers.process import ServerProcess, running

ANYTHING = ""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests in this directory."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.servers)
            item.add_marker(pytest.mark.real_time)
            if sys.platform == "win32":
                item.add_marker(pytest.mark.skip(reason="servers are stopped with signals"))


@pytest.fixture(scope="module", params=KINDS)
def server_kind(request: pytest.FixtureRequest) -> str:
    """
    The kind of server a test runs on.
    """
    name: str = request.param
    if missing := {**KINDS, **WEBSOCKET_KINDS}[name].missing:
        pytest.skip(f"{', '.join(missing)} not installed")
    return name


@pytest.fixture(scope="module")
def module_server(request: pytest.FixtureRequest, server_kind: str) -> Iterator[ServerProcess]:
    """
    The server of a module, before its log is watched.
    """
    with running(server_kind, request.module.APP) as server:
        yield server
        server.stop()
        server.check_log()


@pytest.fixture
def server(request: pytest.FixtureRequest, module_server: ServerProcess) -> Iterator[ServerProcess]:
    """
    A server that runs the module's application, shared by the module's tests.
    """
    yield module_server
    module_server.check_log(allowed=_allowed(request))


@pytest.fixture
def start_server(request: pytest.FixtureRequest, server_kind: str) -> Iterator[Callable[..., ServerProcess]]:
    """
    Start a server for one test: ``start_server(app=..., grace=...)``, the module's by default.
    """
    servers: list[ServerProcess] = []
    with ExitStack() as stack:

        def start(app: str = request.module.APP, *, grace: float | None = None) -> ServerProcess:
            servers.append(stack.enter_context(running(server_kind, app, grace=grace)))
            return servers[-1]

        yield start
        for server in servers:
            server.stop()
            server.check_log(allowed=_allowed(request))


def _allowed(request: pytest.FixtureRequest) -> str | None:
    mark = request.node.get_closest_marker("allow_traceback")
    if mark is None:
        return None
    return mark.args[0] if mark.args else ANYTHING


@pytest.fixture
def key() -> str:
    """
    A name that nobody else has.
    """
    return uuid4().hex
