"""All that is promised of requests holds in each of the ways in which the middleware may run them.

* ``quiet``: few requests are open, and each is monitored as soon as it waits.
* ``crowded``: each waits in line until it is monitored, if only for a moment here.
* ``eager``: scopes are entered in the ordinary way, as with an AnyIO that has changed.
"""

from __future__ import annotations

import pytest

from hother.cancelable.asgi import _crowd, _late_scope

WAYS = {
    "test_crowd": ("quiet",),  # has crowds of its own,
    "test_late_scope": ("quiet",),  # and scopes.
    "test_receive": ("quiet", "eager"),  # In a crowd, nothing is read before any time has passed.
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each async test in each of the ways."""
    if "way" in metafunc.fixturenames and "anyio_backend" in metafunc.fixturenames:
        ways = WAYS.get(metafunc.definition.path.stem, ("quiet", "crowded", "eager"))
        metafunc.parametrize("way", ways, indirect=True)


@pytest.fixture(autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """
    The way in which requests are run.
    """
    way: str = getattr(request, "param", "quiet")
    if way == "crowded":
        monkeypatch.setattr(_crowd, "FEW", 0)
        monkeypatch.setattr(_crowd, "PATIENCE", 0.0)
    if way == "eager":
        monkeypatch.setattr(_late_scope, "_works", False)
    return way
