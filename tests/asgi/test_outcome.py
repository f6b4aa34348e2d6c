"""What a cancelation looks like on the wire."""

from __future__ import annotations

import json

import pytest

from hother.cancelable import Cancelation, CancelationReason
from hother.cancelable.asgi import PROBLEM_JSON, Outcome, close_message, outcome_of, problem
from hother.cancelable.asgi._outcome import http_messages

REASONS = [pytest.param(reason, id=reason.name) for reason in CancelationReason]


def nested(cause: Cancelation, depth: int) -> Cancelation:
    """Return a parent's cancelation, *depth* operations away from *cause*."""
    for level in range(depth):
        cause = Cancelation(CancelationReason.PARENT, f"level {level} was cancelled", "ops", cause)
    return cause


@pytest.mark.parametrize(
    ("reason", "status", "close_code"),
    [
        (CancelationReason.TIMEOUT, 504, 1011),
        (CancelationReason.DISCONNECT, 499, 1001),
        (CancelationReason.SHUTDOWN, 503, 1012),
        (CancelationReason.MANUAL, 503, 1013),
        (CancelationReason.SIGNAL, 503, 1013),
        (CancelationReason.CONDITION, 503, 1013),
        (CancelationReason.PARENT, 503, 1013),
        (CancelationReason.ERROR, 503, 1013),
        (CancelationReason.EXTERNAL, 503, 1013),
    ],
)
def test_each_reason_has_a_status_and_a_close_code(
    reason: CancelationReason, status: int, close_code: int
) -> None:
    """
    The deadline is the server's, the disconnect is nobody's, and all else is for now only.
    """
    outcome = outcome_of(Cancelation(reason))

    assert (outcome.status, outcome.close_code) == (status, close_code)


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_has_an_outcome_with_a_title(reason: CancelationReason) -> None:
    """
    New reasons cannot be forgotten here.
    """
    outcome = outcome_of(Cancelation(reason))

    assert isinstance(outcome, Outcome)
    assert outcome.title
    assert problem(Cancelation(reason))["reason"] == reason.value


def test_only_a_shutdown_says_when_to_come_back() -> None:
    """
    Another worker, or the next one, will be there in a second.
    """
    retry_after = {reason: outcome_of(Cancelation(reason)).headers for reason in CancelationReason}

    assert retry_after.pop(CancelationReason.SHUTDOWN) == {"retry-after": "1"}
    assert set(map(len, retry_after.values())) == {0}


@pytest.mark.parametrize("depth", [1, 2, 10])
def test_a_parents_cancelation_has_the_outcome_of_its_cause(depth: int) -> None:
    """
    The client is told what happened, not through how many operations it came.
    """
    cause = Cancelation(CancelationReason.TIMEOUT, "too slow")
    cancelation = nested(cause, depth)

    assert outcome_of(cancelation) == outcome_of(cause)
    assert problem(cancelation) == problem(cause)
    assert close_message(cancelation) == close_message(cause)


def test_a_problem_document_says_what_and_why() -> None:
    """
    The members of RFC 9457, and the reason.
    """
    assert problem(Cancelation(CancelationReason.TIMEOUT, "timed out after 3 seconds")) == {
        "type": "about:blank",
        "title": "Gateway Timeout",
        "status": 504,
        "detail": "timed out after 3 seconds",
        "reason": "timeout",
    }


def test_a_cancelation_without_a_message_gets_a_sentence() -> None:
    """
    Clients are never told nothing.
    """
    assert problem(Cancelation(CancelationReason.SHUTDOWN))["detail"] == "the server is shutting down"
    assert close_message(Cancelation(CancelationReason.SHUTDOWN))["reason"] == "the server is shutting down"


@pytest.mark.parametrize("depth", [0, 2])
def test_who_cancelled_is_not_told_to_clients(depth: int) -> None:
    """
    Names of operators and operations stay inside.
    """
    cancelation = nested(Cancelation(CancelationReason.MANUAL, "stopped", by="alice@example.org"), depth)
    told = [*http_messages(cancelation), close_message(cancelation)]

    assert "alice" not in str(told)
    assert "ops" not in str(told)


def test_the_response_is_a_problem_document_with_its_length() -> None:
    """
    Names and values are bytes, as ASGI wants them.
    """
    cancelation = Cancelation(CancelationReason.SHUTDOWN, "bis später ☕")
    start, body = http_messages(cancelation)

    assert (start["type"], start["status"]) == ("http.response.start", 503)
    assert dict(start["headers"]) == {
        b"content-type": PROBLEM_JSON.encode(),
        b"content-length": str(len(body["body"])).encode(),
        b"retry-after": b"1",
    }
    assert body["type"] == "http.response.body"
    assert body["more_body"] is False
    assert json.loads(body["body"]) == problem(cancelation)


def test_a_websocket_is_denied_with_the_same_response() -> None:
    """
    Only the types of the messages differ.
    """
    cancelation = Cancelation(CancelationReason.MANUAL)
    denial = http_messages(cancelation, "websocket.")

    assert [message["type"] for message in denial] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert [{**message, "type": message["type"][len("websocket.") :]} for message in denial] == list(
        http_messages(cancelation)
    )


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("x" * 123, "x" * 123),
        ("x" * 124, "x" * 123),
        ("é" * 61, "é" * 61),
        ("é" * 62, "é" * 61),
        ("x" + "é" * 61, "x" + "é" * 61),
        ("x" * 121 + "☕", "x" * 121),
        ("x" * 120 + "🛑", "x" * 120),
        ("🛑" * 100, "🛑" * 30),
    ],
    ids=ascii,
)
def test_a_close_reason_is_cut_between_two_characters(text: str, cut: str) -> None:
    """
    A close frame has room for 123 bytes, and they must be UTF-8.
    """
    message = close_message(Cancelation(CancelationReason.MANUAL, text))

    assert message == {"type": "websocket.close", "code": 1013, "reason": cut}
    assert len(cut.encode()) <= 123
