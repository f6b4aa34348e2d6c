"""Not a byte of a request's body is lost, on real servers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

import httpx
import pytest

from tests.servers.process import ServerProcess
from tests.servers.raw_client import http_request, read_response

APP = "tests.servers.fastapi_app:app"
BODY = bytes(range(256)) * (20 * 4096)  #: 20 MiB


def split(parts: int) -> Iterable[bytes]:
    """Cut the body into parts of about the same size."""
    size = -(-len(BODY) // parts)
    return (BODY[start : start + size] for start in range(0, len(BODY), size))


@pytest.mark.parametrize("parts", [1, 10_000])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_twenty_megabytes_arrive_whole(server: ServerProcess, parts: int, framing: str) -> None:
    """
    Behind a dependency that waits, in one piece and in ten thousand.
    """
    headers = {"Content-Length": str(len(BODY))} if framing == "length" else {}
    with server.connect() as sock:
        http_request(sock, "POST", "/upload", headers, split(parts))
        response = read_response(sock)

    assert json.loads(response.body) == {"sha256": hashlib.sha256(BODY).hexdigest(), "size": len(BODY)}


def test_a_form_arrives_whole(server: ServerProcess) -> None:
    """
    With a file of twenty megabytes.
    """
    response = httpx.post(f"{server.url}/multipart", files={"file": BODY}, timeout=30)

    assert response.json() == {"sha256": hashlib.sha256(BODY).hexdigest(), "size": len(BODY)}


def test_an_upload_that_is_announced_is_asked_for(server: ServerProcess) -> None:
    """
    ``Expect: 100-continue``: the client waits for the server's word, and gets it when the handler reads.
    """
    with server.connect() as sock:
        http_request(sock, "POST", "/upload", {"Content-Length": "5", "Expect": "100-continue"}, [])
        assert sock.recv(100).startswith(b"HTTP/1.1 100")
        sock.sendall(b"hello")
        assert json.loads(read_response(sock).body)["size"] == 5
