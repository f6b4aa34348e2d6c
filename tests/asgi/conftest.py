"""All that is promised of requests holds in each of the ways in which the middleware may run them.

* ``quiet``: few requests are open, and each is monitored as soon as it waits.
* ``crowded``: each waits in line until it is monitored, if only for a moment here.
* ``eager``: scopes are entered in the ordinary way, as with an AnyIO or a Trio that has changed.
* ``taskless``: the server is of the kind that needs no task while it waits for the client; on asyncio only,
  for on Trio there is none.
* ``taskless crowd``: both, for those tests that are about clients that leave.
"""

from __future__ import annotations

from typing import Any

import pytest

from hother.cancelable.asgi import _crowd, _late_scope

from .taskless import let_peers_need_no_task

TASKLESS = ("taskless", "taskless crowd")
MOST = ("quiet", "crowded", "eager", "taskless")
ALL = (*MOST, "taskless crowd")

WAYS = {
    "test_crowd": ("quiet",),  # Has crowds of its own,
    "test_late_scope": ("quiet",),  # and scopes;
    "test_taskless": TASKLESS,  # only those that it is about.
    "test_disconnect": ALL,
    "test_interleavings": ALL,
    "test_leftovers": ALL,
    "test_receive": ("quiet", "eager", "taskless"),  # In a crowd, nothing is read before any time has passed.
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each async test in each of the ways."""
    if "way" in metafunc.fixturenames and "anyio_backend" in metafunc.fixturenames:
        metafunc.parametrize("way", WAYS.get(metafunc.definition.path.stem, MOST), indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take away what does not exist: servers of Trio that need no task."""
    missing = {item for item in items if _is_taskless_on_trio(item)}
    items[:] = [item for item in items if item not in missing]
    config.hook.pytest_deselected(items=list(missing))


def _is_taskless_on_trio(item: pytest.Item) -> bool:
    params: dict[str, Any] = (
        item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    )
    return params.get("anyio_backend") == "trio" and params.get("way") in TASKLESS


@pytest.fixture(autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """
    The way in which requests are run.
    """
    way: str = getattr(request, "param", "quiet")
    if "crowd" in way:
        monkeypatch.setattr(_crowd, "FEW", 0)
        monkeypatch.setattr(_crowd, "PATIENCE", 0.0)
    if way == "eager":
        monkeypatch.setattr(_late_scope, "_works", False)
        monkeypatch.setattr(_late_scope, "_works_in_trio", False)
    if "taskless" in way:
        let_peers_need_no_task(monkeypatch)
    return way
