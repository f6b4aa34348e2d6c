"""Many clients at once, who leave at random moments."""

from __future__ import annotations

import json
import random
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

from tests.servers.process import ServerProcess
from tests.servers.raw_client import hang_up, http_request, read_response

FILES = 4096


@contextmanager
def many_files() -> Iterator[None]:
    """Let this process open so many connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def leave_at_random(server: ServerProcess, path: str, key: str, clients: int, within: float) -> list[float]:
    """Open streams, and have their clients leave at random moments.

    Args:
        server: Whose streams.
        path: Where they are.
        key: What their keys begin with.
        clients: How many there are, all at once.
        within: During how many seconds they leave.

    Returns:
        How many seconds after its client had left each generator was closed.
    """
    keys = [f"{key}-{number}" for number in range(clients)]
    with many_files():
        sockets = []
        for each in keys:
            sockets.append(server.connect())
            http_request(sockets[-1], path=f"{path}?{each}")
        for each in keys:
            server.wait_event("running", each, timeout=60)
        start = monotonic()
        left = {}
        moments = sorted(
            (random.uniform(0, within), each, sock) for each, sock in zip(keys, sockets, strict=True)
        )
        for moment, each, sock in moments:
            sleep(max(0.0, start + moment - monotonic()))
            left[each] = monotonic()
            hang_up(sock, random.choice(["fin", "rst"]))
        server.wait_event("closed", moments[-1][1], timeout=60)
        closed = {each: server.wait_event("closed", each, timeout=60).at for each in keys}
    return sorted(closed[each] - left[each] for each in keys)


def ask_leftovers(server: ServerProcess) -> dict[str, Any]:
    """Ask a server what it has."""
    with server.connect() as sock:
        http_request(sock, path="/leftovers", headers={"Connection": "close"})
        answer: dict[str, Any] = json.loads(read_response(sock).body)
        return answer


def settled_leftovers(server: ServerProcess, *, settling: float = 15) -> dict[str, Any]:
    """Ask a server what it has, once that does not change any more."""
    deadline = monotonic() + settling
    found = ask_leftovers(server)
    while monotonic() < deadline:
        sleep(0.2)
        previous, found = found, ask_leftovers(server)
        is_same = (found["tasks"], found["objects"]) == (previous["tasks"], previous["objects"])
        if (
            is_same and found["objects"]["CancelationToken"] <= 2
        ):  # of the request that counts, and of the shutdown to come
            break
    return found
