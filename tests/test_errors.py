"""The errors of cancelled operations, and the records that they carry."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import traceback

import pytest
from anyio import sleep_forever

from hother.cancelable import (
    Cancelable,
    Cancelation,
    CancelationError,
    CancelationReason,
    CancelationToken,
    LifecycleError,
    OperationStatus,
    TimeoutCancelation,
)


def error_of(reason: CancelationReason) -> CancelationError:
    """Have a token raise its error."""
    token = CancelationToken()
    token.cancel(reason, "enough", by="alice")
    with pytest.raises(CancelationError) as caught:
        token.check()
    return caught.value


@pytest.mark.parametrize("reason", CancelationReason)
def test_all_errors_have_one_base(reason: CancelationReason) -> None:
    """
    Who wants to catch every cancelation catches one class, an ordinary exception.
    """
    error = error_of(reason)

    assert isinstance(error, CancelationError)
    assert isinstance(error, Exception)
    assert (error.reason, error.message) == (reason, "enough")
    assert str(error) == "enough (by alice)"


def test_only_a_timeout_is_a_timeout_error() -> None:
    """
    ``except TimeoutError`` catches timeouts, and nothing else of ours.
    """
    timeouts = [reason for reason in CancelationReason if isinstance(error_of(reason), TimeoutError)]

    assert timeouts == [CancelationReason.TIMEOUT]


def test_a_lifecycle_error_is_no_cancelation() -> None:
    """
    A mistake in the program must not pass for an event.
    """
    assert issubclass(LifecycleError, RuntimeError)
    assert not issubclass(LifecycleError, CancelationError)


@pytest.mark.parametrize("reason", CancelationReason)
def test_every_reason_has_a_sentence(reason: CancelationReason) -> None:
    """
    A record without a message still tells a human something, and so does its error.
    """
    cancelation = Cancelation(reason)

    assert len(str(cancelation).split()) >= 3
    assert str(cancelation) == cancelation.text
    assert str(Cancelation(reason, by="bob")) == f"{cancelation.text} (by bob)"
    assert str(Cancelation(reason, "no")) == "no"


def test_a_reason_is_its_word() -> None:
    """
    In JSON and in log lines, a reason is a plain string.
    """
    assert str(CancelationReason.DISCONNECT) == f"{CancelationReason.DISCONNECT}" == "disconnect"
    assert CancelationReason("disconnect") is CancelationReason.DISCONNECT
    assert json.dumps(CancelationReason.DISCONNECT) == '"disconnect"'


def test_a_record_cannot_be_changed() -> None:
    """
    What was said stays said, and has a hash.
    """
    cancelation = Cancelation(CancelationReason.MANUAL)

    with pytest.raises(dataclasses.FrozenInstanceError):
        cancelation.message = "other"  # type: ignore[misc]

    assert hash(cancelation) == hash(Cancelation(CancelationReason.MANUAL))


def test_records_are_equal_if_they_say_the_same() -> None:
    """
    When they were made makes no difference.
    """
    assert Cancelation(CancelationReason.MANUAL, at=1.0) == Cancelation(CancelationReason.MANUAL, at=2.0)
    assert Cancelation(CancelationReason.MANUAL) != Cancelation(CancelationReason.MANUAL, "really")


@pytest.mark.parametrize("reason", CancelationReason)
def test_an_error_can_be_pickled_and_copied(reason: CancelationReason) -> None:
    """
    It crosses process boundaries whole, with record and context.
    """
    operation = Cancelable(name="report", operation_id="7", metadata={"user": "bob"})
    operation.cancel(reason, "enough", by="alice")
    with pytest.raises(CancelationError) as caught:
        operation.check()

    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        twin = pickle.loads(pickle.dumps(caught.value, protocol))

        assert type(twin) is type(caught.value)
        assert twin.cancelation == caught.value.cancelation
        assert twin.cancelation.at == caught.value.cancelation.at
        assert twin.context == caught.value.context
        assert str(twin) == str(caught.value) == "report: enough (by alice)"

    assert str(copy.copy(caught.value)) == str(caught.value)


async def test_an_error_names_its_operation() -> None:
    """
    In a log with many operations one can see which it was, and what it looked like when it ended.
    """
    with pytest.raises(TimeoutCancelation) as caught:
        async with Cancelable(timeout=1.5, name="report") as operation:
            await sleep_forever()

    assert str(caught.value) == "report: timed out after 1.5 seconds"
    assert caught.value.context is not None
    assert caught.value.context.id == operation.id
    assert caught.value.context.status is OperationStatus.CANCELLED
    assert caught.value.context.duration == 1.5


async def test_an_error_without_a_name_is_just_the_reason() -> None:
    """
    Nobody wants to read random ids.
    """
    with pytest.raises(CancelationError) as caught:
        async with Cancelable() as operation:
            operation.cancel(message="enough")
            await sleep_forever()

    assert str(caught.value) == "enough"


def test_a_traceback_shows_the_public_name() -> None:
    """
    Users can import what they see.
    """
    lines = traceback.format_exception_only(error_of(CancelationReason.TIMEOUT))

    assert lines == ["hother.cancelable.TimeoutCancelation: enough (by alice)\n"]
