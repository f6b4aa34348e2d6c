"""How the middleware is set up, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from .._core._timeouts import seconds
from ._policy import OnDisconnect, OnShutdown, RequestPolicy, check_reaction


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the middleware; `RequestCancelationMiddleware` documents them."""

    default_timeout: float | None = None
    websocket_timeout: float | None = None
    on_disconnect: OnDisconnect | None = None
    on_shutdown: OnShutdown | None = None
    reject_during_shutdown: bool = False
    read_ahead: int = 65_536
    answer_timeout: float = 5.0
    websocket_grace: float = 10.0
    shutdown_timeout: float = 10.0
    disconnect_errors: tuple[type[Exception], ...] = ()  #: what a framework raises when its client has left

    shortest_timeout: float = field(init=False, repr=False, compare=False)  #: of the two; infinity if none
    #: What is stated here about each HTTP request, and about each WebSocket.
    _policies: dict[str, RequestPolicy] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("default_timeout", "websocket_timeout"):
            object.__setattr__(self, name, seconds(getattr(self, name), name))
        for name in ("answer_timeout", "websocket_grace", "shutdown_timeout"):
            value = seconds(getattr(self, name), name)
            object.__setattr__(self, name, inf if value is None else value)
        for name in ("on_disconnect", "on_shutdown"):
            if getattr(self, name) is not None:
                check_reaction(getattr(self, name), name)
        if type(self.read_ahead) is not int or self.read_ahead < 0:
            raise ValueError(f"read_ahead must be a number of bytes, 0 or more, got {self.read_ahead!r}")
        limits = (self.default_timeout, self.websocket_timeout)
        shortest = min(inf if limit is None else limit for limit in limits)
        object.__setattr__(self, "shortest_timeout", shortest)
        policies = {
            "http": self._policy(self.default_timeout),
            "websocket": self._policy(self.websocket_timeout),
        }
        object.__setattr__(self, "_policies", policies)

    def policy_for(self, kind: str) -> RequestPolicy:
        """Return what is stated here about every request of a *kind*, which is ``http`` or ``websocket``."""
        return self._policies[kind]

    def _policy(self, limit: float | None) -> RequestPolicy:
        return RequestPolicy(
            timeout="inherit" if limit is None else limit,
            on_disconnect=self.on_disconnect,
            on_shutdown=self.on_shutdown,
        )
