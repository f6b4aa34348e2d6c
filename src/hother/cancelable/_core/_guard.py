"""A token that is cancelled when its owner is done, whatever way that happens."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, final

from ._public import public
from ._reasons import CancelationReason

if TYPE_CHECKING:
    from ._token import CancelationToken


@public
@final
class TokenGuard:
    """The context manager that `CancelationToken.guard` returns. It cancels the token when it is left.

    So work that was started on the token's behalf does not outlive the code that started it::

        with token.guard(message="the owner has gone") as guard:
            start(token)
            if is_handed_over():
                guard.disarm()

    It awaits nothing, and may be used in any thread.
    """

    __slots__ = ("_by", "_is_armed", "_message", "_reason", "_token")

    def __init__(
        self, token: CancelationToken, reason: CancelationReason, message: str | None, by: str | None
    ) -> None:
        self._token = token
        self._reason = reason
        self._message = message
        self._by = by
        self._is_armed = True

    @property
    def token(self) -> CancelationToken:
        """The token that it cancels."""
        return self._token

    def disarm(self) -> CancelationToken:
        """Let the token be, and return it: whoever takes it over cancels it. Safe in any thread."""
        self._is_armed = False
        return self._token

    def __enter__(self) -> TokenGuard:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_armed:
            self._token.cancel(self._reason, self._message, by=self._by)
