"""The examples of streams do what they say."""

from __future__ import annotations

import pytest

from examples import progress_feed, token_stream


async def test_the_model_stops_when_the_reader_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    """
    It computes all tokens for the patient reader, and two for the hasty one.
    """
    token_stream.computed.clear()
    token_stream.aborted.clear()

    await token_stream.main()

    *_, before, last = capsys.readouterr().out.splitlines()
    assert before == "computed for patient: 10, for hasty: 2"
    assert last == "aborted: hasty"


async def test_progress_goes_on_where_the_connection_broke(capsys: pytest.CaptureFixture[str]) -> None:
    """
    Nothing is missed or told twice, and the report is built once.
    """
    progress_feed.built.clear()

    await progress_feed.main()

    assert capsys.readouterr().out.splitlines() == [
        *(f"before: {percent} %" for percent in (10, 20, 30)),
        "the connection breaks",
        *(f"after: {percent} %" for percent in range(40, 101, 10)),
        "parts built: 10",
    ]
