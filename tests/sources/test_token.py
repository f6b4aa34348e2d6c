"""The token source."""

from __future__ import annotations

import pytest
from anyio import create_task_group, wait_all_tasks_blocked

from hother.cancelable import Cancelation, CancelationReason, CancelationToken, TokenSource


async def test_a_token_fires_for_its_own_reason() -> None:
    """
    The record is the token's, and nothing stays on the token.
    """
    token = CancelationToken()
    fired: list[Cancelation] = []

    async def wait() -> None:
        fired.append(await TokenSource(token).wait())

    async with create_task_group() as tasks:
        tasks.start_soon(wait)
        await wait_all_tasks_blocked()
        token.cancel(CancelationReason.SHUTDOWN)

    assert fired[0] is token.cancelation
    assert token.statistics().callbacks == 0


def test_only_a_token_is_a_token() -> None:
    """
    Anything else is refused when the source is made.
    """
    with pytest.raises(TypeError, match="token must be a CancelationToken, got 'x'"):
        TokenSource("x")  # type: ignore[arg-type]


def test_a_token_source_shows_its_token() -> None:
    """
    And with it, whether it was cancelled.
    """
    assert repr(TokenSource(CancelationToken())).startswith("TokenSource(<CancelationToken active")
