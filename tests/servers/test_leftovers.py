"""Requests whose clients left leave nothing behind, on real servers."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep
from typing import Any

from tests.servers.process import ServerProcess
from tests.servers.raw_client import hang_up, http_request, read_response

APP = "tests.servers.fastapi_app:app"
PLAIN_STREAM = "/plain-stream"
MEBIBYTE = 2**20
SETTLING = 15  #: seconds
ALIVE = 2  #: tokens: of the request that counts, and of the shutdown to come


def leave(server: ServerProcess, path: str, key: str) -> None:
    """Make a request, and leave while its handler runs.

    Starlette does not close the generator of a stream of its own: Python does, perhaps only when it
    collects garbage, as `leftovers` has it do.
    """
    sock = server.connect()
    http_request(sock, path=f"{path}?{key}")
    server.wait_event("running", key)
    hang_up(sock)
    if path != PLAIN_STREAM:
        server.wait_event("stopped", key)


def leave_often(server: ServerProcess, key: str, times: int) -> None:
    """Leave *times* requests, a few of them at once."""
    paths = ["/data", "/slow", "/stream", "/plain", PLAIN_STREAM]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: leave(server, paths[n % len(paths)], f"{key}-{n}"), range(times)))
    leftovers(server)
    for n in range(paths.index(PLAIN_STREAM), times, len(paths)):
        server.wait_event("stopped", f"{key}-{n}")


def leftovers(server: ServerProcess) -> dict[str, Any]:
    """Ask the server what it has, once it has settled: servers time closed connections out."""
    found: dict[str, Any] = {}
    deadline = monotonic() + SETTLING
    while monotonic() < deadline:
        with server.connect() as sock:
            http_request(sock, path="/leftovers", headers={"Connection": "close"})
            previous, found = found, json.loads(read_response(sock).body)
        if found["tasks"] == previous.get("tasks") and found["objects"]["CancelationToken"] <= ALIVE:
            break
        sleep(0.2)
    return found


def test_a_thousand_disconnected_requests_leave_nothing(server: ServerProcess, key: str) -> None:
    """
    No task, no object of ours, no file; and as good as no memory, once the process is warm.
    """
    leave_often(server, f"{key}-warm", 100)
    before = leftovers(server)

    leave_often(server, key, 1000)

    after = leftovers(server)
    assert after["tasks"] <= before["tasks"]
    assert after["threads"] <= before["threads"]
    assert after["files"] <= before["files"] + 1
    ours = {"Exchange": 1, "Reader": 0, "CancelationToken": ALIVE, "Cancelable": 0, "Block": 0}
    assert after["objects"] == ours, "more than the request that counts"
    assert after["resident"] - before["resident"] < 8 * MEBIBYTE
