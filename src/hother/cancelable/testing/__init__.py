"""For tests of cancelable code, ours and yours: hours of timeouts that take no time."""

from __future__ import annotations

from ._clock import AutojumpEventLoop, virtual_backend

__all__ = ("AutojumpEventLoop", "virtual_backend")

for _public in (AutojumpEventLoop, virtual_backend):
    _public.__module__ = __name__
del _public
