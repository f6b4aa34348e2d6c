"""HTTP/1.1 by hand, for clients that leave in the middle."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPResponse, IncompleteRead
from typing import Literal


@dataclass(frozen=True, slots=True)
class Response:
    """What a server has answered."""

    status: int
    headers: dict[str, str]  #: by their names in lower case
    body: bytes
    complete: bool  #: whether all of the body arrived


def http_request(
    sock: socket.socket,
    method: str = "GET",
    path: str = "/",
    headers: Mapping[str, str] | None = None,
    body_chunks: Iterable[bytes] | None = None,
    *,
    finish: bool = True,
) -> None:
    """Send a request.

    Args:
        sock: The connection.
        method: The method.
        path: The path, with its query string.
        headers: The headers besides ``Host``.
        body_chunks: The body; sent with chunked encoding, unless the headers give its length.
        finish: Whether the body ends with its last chunk; if not, go on with `send_chunk`.
    """
    lines = [f"{method} {path} HTTP/1.1", "Host: test"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    raw = any(name.lower() == "content-length" for name in headers or ())
    if body_chunks is not None and not raw:
        lines.append("Transfer-Encoding: chunked")
    sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
    for chunk in body_chunks or ():
        if raw:
            sock.sendall(chunk)
        else:
            send_chunk(sock, chunk)
    if body_chunks is not None and not raw and finish:
        send_chunk(sock, b"")


def send_chunk(sock: socket.socket, data: bytes) -> None:
    """Send the next chunk of a request's body; an empty one is the last."""
    sock.sendall(b"%x\r\n%b\r\n" % (len(data), data))


def open_response(sock: socket.socket, method: str = "GET") -> HTTPResponse:
    """Wait for the head of a response; its ``read1()`` gives the body as it comes."""
    response = HTTPResponse(sock, method=method)
    response.begin()
    return response


def read_response(sock: socket.socket, method: str = "GET") -> Response:
    """Read a response to its end, or to the end of the connection.

    Raises:
        http.client.RemoteDisconnected: If the connection ends before the response begins.
    """
    with open_response(sock, method) as response:
        headers = {name.lower(): value for name, value in response.getheaders()}
        try:
            return Response(response.status, headers, response.read(), complete=True)
        except IncompleteRead as error:
            return Response(response.status, headers, error.partial, complete=False)


def hang_up(sock: socket.socket, how: Literal["fin", "rst", "half"] = "fin") -> None:
    """Leave.

    Args:
        sock: The connection; of no use afterwards, unless it is half-closed.
        how: ``"fin"`` closes as programs do; what arrived and was not read makes it a reset after
            all. ``"rst"`` resets, as a crash or a load balancer does. ``"half"`` says that there is
            nothing more to send, and goes on reading.
    """
    if how == "half":
        sock.shutdown(socket.SHUT_WR)
        return
    if how == "rst":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # A close takes effect once nobody uses the connection any more. So this wakes a thread that reads
    # from it, as a WebSocket's does; for "rst" nothing goes over the wire yet.
    with suppress(OSError):  # the server was faster
        sock.shutdown(socket.SHUT_RD if how == "rst" else socket.SHUT_RDWR)
    # close() would wait for files that were made of the socket, as a response's is.
    descriptor = sock.detach()
    if descriptor >= 0:  # unless that thread was faster
        os.close(descriptor)
