"""The applications that servers are started with: ``hother.cancelable._doctor._probe._app:app``."""

from __future__ import annotations

from ._bare import bare
from ._stacks import Stacks
from ._witness import Witness

app = Witness(Stacks(bare))
bare_app = Witness(Stacks(bare, lifespan=bare))
