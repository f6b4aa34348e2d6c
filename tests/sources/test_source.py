"""What passes for a source."""

from __future__ import annotations

from typing import Any

import pytest

import hother.cancelable
import hother.cancelable.sources
from hother.cancelable import Cancelable, Cancelation, CancelationReason, CancelationToken, ManualCancelation
from hother.cancelable.sources._source import wait_for


class Once:
    """A user's own source."""

    def __init__(self, result: Any) -> None:
        self.result = result

    def __repr__(self) -> str:
        return "Once()"

    async def wait(self) -> Cancelation:
        return self.result  # type: ignore[no-any-return]


@pytest.mark.parametrize("thing", [None, 1, "SIGTERM", object(), Once])
def test_a_source_must_be_able_to_wait(thing: Any) -> None:
    """
    What cannot, the class instead of an instance included, is found when the operation is made.
    """
    with pytest.raises(TypeError, match=r"a source must have a coroutine method wait\(\), got"):
        Cancelable(sources=[thing])


async def test_the_record_says_which_source_it_was() -> None:
    """
    One that names itself keeps its name; else it is the source's repr, and the time stays.
    """
    anonymous = Cancelation(CancelationReason.SHUTDOWN, "bye")
    named = Cancelation(CancelationReason.SHUTDOWN, "bye", by="the operator")

    filled_in = await wait_for(Once(anonymous))

    assert filled_in == Cancelation(CancelationReason.SHUTDOWN, "bye", by="Once()")
    assert filled_in.at == anonymous.at
    assert await wait_for(Once(named)) is named


@pytest.mark.parametrize("result", [None, True, "because"])
async def test_a_source_that_returns_something_else_is_a_mistake(result: Any) -> None:
    """
    The error names the source.
    """
    with pytest.raises(TypeError, match=r"must return a Cancelation, Once\(\) returned"):
        await wait_for(Once(result))


async def test_a_token_is_a_source() -> None:
    """
    It has the one method that counts.
    """
    token = CancelationToken()
    token.cancel(by="me")

    with pytest.raises(ManualCancelation) as caught:
        async with Cancelable(sources=[token]):
            await hother.cancelable.TimeoutSource(1).wait()

    assert caught.value.cancelation is token.cancelation


def test_the_module_and_the_package_have_the_same_names() -> None:
    """
    Sources can be imported from both, and an unknown one is an attribute error.
    """
    for name in hother.cancelable.sources.__all__:
        assert getattr(hother.cancelable.sources, name) is getattr(hother.cancelable, name)

    assert set(dir(hother.cancelable.sources)) >= set(hother.cancelable.sources.__all__)

    with pytest.raises(AttributeError, match=r"'hother\.cancelable\.sources' has no attribute 'Nothing'"):
        hother.cancelable.sources.Nothing  # noqa: B018
