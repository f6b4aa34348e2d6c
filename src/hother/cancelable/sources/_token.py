"""Cancel when a token is cancelled."""

from __future__ import annotations

from typing import final

from .._core._public import public
from .._core._reasons import Cancelation
from .._core._token import CancelationToken


@public
@final
class TokenSource:
    """Cancels when a token is cancelled, for the token's reason.

    An operation by itself takes ``tokens``, which cost no task. This is for inside of `AnyOfSource`
    and `AllOfSource`.

    Args:
        token: The token to wait for.

    Raises:
        TypeError: If *token* is not a `CancelationToken`.
    """

    __slots__ = ("_token",)

    def __init__(self, token: CancelationToken) -> None:
        if not isinstance(token, CancelationToken):
            raise TypeError(f"token must be a CancelationToken, got {token!r}")
        self._token = token

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._token!r})"

    async def wait(self) -> Cancelation:
        """Wait until the token is cancelled. Always a checkpoint."""
        return await self._token.wait()
