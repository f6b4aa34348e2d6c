"""How the middleware is set up, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal, TypeAlias, get_args

from .._core._timeouts import seconds

OnDisconnect: TypeAlias = Literal["cancel", "ignore"]


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the middleware; `RequestCancelationMiddleware` documents them."""

    default_timeout: float | None = None
    websocket_timeout: float | None = None
    on_disconnect: OnDisconnect = "cancel"
    read_ahead: int = 65_536
    answer_timeout: float = 5.0
    websocket_grace: float = 10.0
    disconnect_errors: tuple[type[Exception], ...] = ()  #: what a framework raises when its client has left

    def __post_init__(self) -> None:
        for name in ("default_timeout", "websocket_timeout"):
            object.__setattr__(self, name, seconds(getattr(self, name), name))
        for name in ("answer_timeout", "websocket_grace"):
            value = seconds(getattr(self, name), name)
            object.__setattr__(self, name, inf if value is None else value)
        if self.on_disconnect not in get_args(OnDisconnect):
            raise ValueError(f"on_disconnect must be 'cancel' or 'ignore', got {self.on_disconnect!r}")
        if type(self.read_ahead) is not int or self.read_ahead < 0:
            raise ValueError(f"read_ahead must be a number of bytes, 0 or more, got {self.read_ahead!r}")
