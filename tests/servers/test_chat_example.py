"""The chat room of the examples, with members who vanish and members who sleep."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from threading import Semaphore, Thread
from time import monotonic
from typing import Any, Literal

import pytest

from tests.servers.process import TIMEOUT, ServerProcess
from tests.servers.raw_client import hang_up, http_request
from tests.servers.test_websockets import UPGRADE, close_of, connect

APP = "examples.chat:app"
LIMIT = 0.5  #: seconds

pytestmark = pytest.mark.parametrize(
    "server_kind", ["uvicorn-asyncio", "hypercorn-trio"], indirect=True, scope="module"
)


@contextmanager
def member(server: ServerProcess, name: str) -> Iterator[Any]:
    """Be in the room for the length of a block."""
    with connect(server, f"/chat/{name}") as connection:
        hear(connection, joined=name)
        yield connection


def hear(connection: Any, **expected: Any) -> dict[str, Any]:
    """Wait for an event with these fields."""
    while True:
        event: dict[str, Any] = json.loads(connection.recv(timeout=TIMEOUT))
        if expected.items() <= event.items():
            return event


def test_everybody_hears_everybody(server: ServerProcess, key: str) -> None:
    """
    And sees who comes and goes.
    """
    with member(server, f"Ann-{key}") as ann:
        with member(server, f"Bob-{key}") as bob:
            hear(ann, joined=f"Bob-{key}")
            bob.send("hello")
            assert hear(ann, text="hello")["from"] == hear(bob, text="hello")["from"] == f"Bob-{key}"

        assert hear(ann, left=f"Bob-{key}")["members"] == [f"Ann-{key}"]


def test_a_name_is_taken_once(server: ServerProcess, key: str) -> None:
    """
    The second one is told, in the close code, and the first one stays.
    """
    with member(server, key) as first:
        with connect(server, f"/chat/{key}") as second:
            assert close_of(second) == (4009, f"{key} is here already")

        first.send("still me")
        hear(first, text="still me")


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_member_that_vanishes_disappears_at_once(
    server: ServerProcess, key: str, how: Literal["fin", "rst"]
) -> None:
    """
    Without a word of farewell.
    """
    with member(server, f"Ann-{key}") as ann, member(server, f"Bob-{key}") as bob:
        left = monotonic()
        hang_up(bob.socket, how)

        hear(ann, left=f"Bob-{key}")

        assert monotonic() - left < LIMIT


def test_a_member_that_sleeps_does_not_hold_up_the_others(server: ServerProcess, key: str) -> None:
    """
    It is shown out once its queue is full, and nobody waits for that.
    """
    text = "x" * 65_536
    with member(server, f"Ann-{key}") as ann, server.connect() as sleeper:
        http_request(sleeper, path=f"/chat/sleeper-{key}", headers=UPGRADE)
        hear(ann, joined=f"sleeper-{key}")
        heard: list[float] = []
        turns = Semaphore(8)  # how far she talks ahead of what she hears, lest she be shown out herself

        def listen() -> None:
            while "left" not in json.loads(ann.recv(timeout=TIMEOUT)):
                heard.append(monotonic())
                turns.release()

        listener = Thread(target=listen)
        listener.start()
        while listener.is_alive():
            if turns.acquire(timeout=0.1):
                ann.send(text)
        listener.join()

        assert max(later - sooner for sooner, later in pairwise(heard)) < LIMIT
