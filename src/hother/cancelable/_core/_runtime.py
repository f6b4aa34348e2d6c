"""What event loops run on: there is one of it for each backend that a block was entered on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from anyio import CancelScope
    from anyio.abc import AsyncBackend


@final
class Runtime:
    """A backend: AnyIO's, the class of its scopes, what cancels them, and what reads the clock of a loop.

    No bound method of a clock: ten thousand blocks would have one each.
    """

    __slots__ = ("backend", "cancel", "scopes", "time")

    def __init__(
        self,
        backend: type[AsyncBackend],
        scopes: type[CancelScope],
        cancel: Callable[[CancelScope, str], None] | None,
        time: Callable[[Any], float],
    ) -> None:
        self.backend = backend  #: AnyIO's
        self.scopes = scopes  #: called without arguments
        self.cancel = cancel  #: called with a scope, and with why; ``None``: their own
        self.time = time  #: the time on a clock, which any thread may ask for
