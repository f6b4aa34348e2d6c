"""What servers do with a client that does not read, without anything of ours: evidence for the docs."""

from __future__ import annotations

import pytest

from tests.servers.flood_app import MUCH, PIECE
from tests.servers.process import ServerProcess
from tests.servers.raw_client import http_request

APP = "tests.servers.flood_app:app"
LAST = MUCH // len(PIECE) - 1

hypercorn = pytest.mark.parametrize(
    "server_kind", ["hypercorn-asyncio", "hypercorn-trio"], indirect=True, scope="module"
)


def test_a_server_stops_taking_what_its_client_does_not_read(server: ServerProcess, key: str) -> None:
    """
    Over HTTP/1.1: so a limit for sending can tell that the client has stalled.
    """
    with server.connect() as sock:
        http_request(sock, path=f"/?{key}")
        server.wait_event("taken", f"{key}-0")
        with pytest.raises(AssertionError, match="no 'taken'"):
            server.wait_event("taken", f"{key}-{LAST}", timeout=1.5)


@hypercorn
def test_hypercorn_takes_everything_over_http_2(server: ServerProcess, key: str) -> None:
    """
    Into its memory, for a client whose window stays shut. Once this fails, it is mended: tell the docs.
    """
    config = pytest.importorskip("h2.config").H2Configuration(client_side=True)
    client = pytest.importorskip("h2.connection").H2Connection(config)
    client.initiate_connection()
    head = {":method": "GET", ":path": f"/?{key}", ":scheme": "http", ":authority": "test"}
    client.send_headers(1, list(head.items()), end_stream=True)
    with server.connect() as sock:
        sock.sendall(client.data_to_send())

        taken = server.wait_event("taken", f"{key}-{LAST}")  # and the client has not read a single byte

    assert taken.fields["version"] == "2"
