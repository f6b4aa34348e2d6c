"""The page on WebSockets: its handlers end as the text around them says."""

from __future__ import annotations

import anyio
import pytest

from tests.test_docs import ROOT, Answer, load, talk

PAGE = ROOT / "docs/how-to/websockets.md"


def texts(answer: Answer) -> list[str]:
    return [message["text"] for message in answer.messages if message["type"] == "websocket.send"]


def closes(answer: Answer) -> list[tuple[int, str]]:
    return [
        (message["code"], message["reason"])
        for message in answer.messages
        if message["type"] == "websocket.close"
    ]


@pytest.mark.parametrize(
    ("path", "says", "hears"),
    [
        ("/prices", [], ['{"price":42}'] * 2),
        ("/chat/Ann", ["hello"], ["Ann: hello"]),
        ("/echo", ["hello"], ["hello"]),
        ("/both-ways", ["hello"], ["HELLO"]),
    ],
)
async def test_handlers_end_with_their_client(path: str, says: list[str], hears: list[str]) -> None:
    """
    Quietly, and soon; nothing is sent to a client that has left.
    """
    program = load(PAGE)

    answer = await talk(program["app"], path, says, leaves_after=1.5)

    assert texts(answer) == hears
    assert closes(answer) == []
    assert answer.seconds == pytest.approx(1.6 if path.startswith("/chat") else 1.5)
    expected = {"/chat/Ann": ["Ann has left (1001)"], "/echo": ["disconnect 1001"]}
    assert program["goodbyes"] == expected.get(path, [])


async def test_a_silent_client_is_let_go() -> None:
    """
    With the code that the handler has chosen.
    """
    answer = await talk(load(PAGE)["app"], "/quiz", ["a door", "a piano"], leaves_after=3600)

    assert texts(answer)[1:] == ["wrong", "right"]
    assert closes(answer) == [(4008, "the client sent nothing for 30 seconds")]
    assert anyio.current_time() == pytest.approx(30)
