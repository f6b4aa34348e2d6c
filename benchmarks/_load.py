"""Requests, as many as a server can take: from wrk, or from a process of our own where there is none."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from time import perf_counter
from typing import NamedTuple

REQUEST = b"GET %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: benchmark\r\nAccept: */*\r\n\r\n"


class Load(NamedTuple):
    """What a server got done."""

    requests: int
    seconds: float


def load(port: int, path: str, connections: int, seconds: float) -> Load:
    """Load a server on this machine, from another process, on the last processor."""
    url = f"http://127.0.0.1:{port}{path}"
    if wrk := shutil.which("wrk"):
        command = [wrk, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", url]
    else:
        command = [sys.executable, "-m", "benchmarks._load", str(port), path, str(connections), str(seconds)]
    output = subprocess.run(command, capture_output=True, check=True, text=True, preexec_fn=_move).stdout
    if "Non-2xx" in output:
        raise RuntimeError(output)
    found = re.search(r"(\d+) requests in ([\d.]+)s", output)
    if found is None:
        raise RuntimeError(output)
    return Load(int(found[1]), float(found[2]))


def pin(pid: int, processor: int) -> None:
    """Keep a process on one processor, where that can be done."""
    if hasattr(os, "sched_setaffinity"):
        available = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(pid, {available[processor]})


def _move() -> None:
    pin(0, -1)


async def _client(port: int, path: str, until: float) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    done, request = 0, REQUEST % path.encode()
    while perf_counter() < until:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
        done += 1
    writer.close()
    return done


async def _main(port: str, path: str, connections: str, seconds: str) -> None:
    until = perf_counter() + float(seconds)
    done = await asyncio.gather(*(_client(int(port), path, until) for _ in range(int(connections))))
    print(f"{sum(done)} requests in {seconds}s")


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
