"""AnyIO's backends on the jumping clock: a pytest plugin, registered by `hother.cancelable.pytest_plugin`.

Plugins come before conftest files: a project's own ``anyio_backend`` fixture overrides this one, as
this one overrides AnyIO's.
"""

from __future__ import annotations

from typing import Any

import pytest
from anyio import get_available_backends

from ._clock import virtual_backend


@pytest.fixture(params=get_available_backends())
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The backend that an async test runs on, with its clock."""
    if request.node.get_closest_marker("cancelable_real_clock"):
        return request.param, {}
    return virtual_backend(request.param)
