"""How pieces become messages."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hother.cancelable.integrations._regroup import AsTheyCome, Chunks, Grouping


def everything(grouping: Grouping) -> list[bytes]:
    return list(iter(lambda: grouping.take(everything=True), b""))


def enough(grouping: Grouping) -> list[bytes]:
    return list(iter(lambda: grouping.take(everything=False), b""))


@given(
    pieces=st.lists(st.binary(max_size=30) | st.binary(max_size=30).map(lambda data: memoryview(data))),
    size=st.integers(1, 40),
)
def test_chunks_have_their_size_and_lose_nothing(pieces: list[bytes | memoryview], size: int) -> None:
    """
    All bytes come out, in order; every chunk is full, and only the last one may have less.
    """
    chunks = Chunks(size)
    taken: list[bytes] = []
    for piece in pieces:
        chunks.add(piece)
        taken += enough(chunks)
        assert len(chunks) < size
    full = len(taken)
    taken += everything(chunks)

    assert b"".join(taken) == b"".join(pieces)
    assert [len(chunk) for chunk in taken[:full]] == [size] * full
    assert len(taken) - full <= 1
    assert all(0 < len(chunk) < size for chunk in taken[full:])
    assert len(chunks) == 0


@given(pieces=st.lists(st.binary(max_size=30)), flushes=st.sets(st.integers(0, 20)), size=st.integers(1, 40))
def test_a_flush_in_between_loses_nothing(pieces: list[bytes], flushes: set[int], size: int) -> None:
    """
    It makes chunks smaller, and that is all.
    """
    chunks = Chunks(size)
    taken: list[bytes] = []
    for number, piece in enumerate(pieces):
        chunks.add(piece)
        taken += everything(chunks) if number in flushes else enough(chunks)
    taken += everything(chunks)

    assert b"".join(taken) == b"".join(pieces)
    assert all(0 < len(chunk) <= size for chunk in taken)


@given(pieces=st.lists(st.binary(max_size=30)))
def test_pieces_may_go_out_as_they_come(pieces: list[bytes]) -> None:
    """
    One message each, but for empty ones.
    """
    grouping = AsTheyCome()
    for piece in pieces:
        grouping.add(memoryview(piece))

    assert len(grouping) == len([piece for piece in pieces if piece])
    assert enough(grouping) == [piece for piece in pieces if piece]
    assert everything(grouping) == []
