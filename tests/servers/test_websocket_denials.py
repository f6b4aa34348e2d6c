"""WebSockets that are cancelled before they are accepted, on every implementation of real servers."""

from __future__ import annotations

import json

import pytest

from tests.servers.process import ServerProcess
from tests.servers.raw_client import http_request, read_response
from tests.servers.test_websockets import UPGRADE

APP = "tests.servers.websocket_denials_app:app"
EVERY_IMPLEMENTATION = ["uvicorn-asyncio", "uvicorn-wsproto-asyncio", "hypercorn-asyncio", "hypercorn-trio"]


@pytest.mark.allow_traceback("CancelationError|ManualCancelation")
@pytest.mark.parametrize("server_kind", EVERY_IMPLEMENTATION, indirect=True, scope="module")
@pytest.mark.parametrize("place", ["/with", "/without"])
@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/quiet", 503, "closed for today"),
        ("/raises", 503, "closed for today"),
        ("/out-of-time", 504, "timed out after 0.05 seconds"),
    ],
)
def test_the_client_is_told_why(server: ServerProcess, place: str, path: str, status: int, text: str) -> None:
    """
    With the status of the cancelation, and in words: neither 403, which blames it, nor 500.
    """
    with server.connect() as sock:
        http_request(sock, path=f"{place}{path}", headers=UPGRADE)
        response = read_response(sock)

    assert response.status == status
    if path != "/out-of-time":
        assert json.loads(response.body)["detail"] == text
    else:
        assert response.body.decode() == text  # an HTTPException's, which is for the framework to tell
