"""Requests, as many as a server can take: from wrk, or from a process of our own where there is none."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

from ._figures import percentile

REQUEST = b"GET %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: benchmark\r\nAccept: */*\r\n\r\n"
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True, slots=True)
class Load:
    """What a server got done."""

    requests: int
    seconds: float
    p50: float  #: how long half of the requests took at most, in seconds
    p99: float


def load(port: int, path: str, connections: int, seconds: float) -> Load:
    """Load a server on this machine, from another process, on the last processor."""
    wrk = shutil.which("wrk")
    if wrk and seconds >= 1:  # less it cannot
        return _wrk(wrk, f"http://127.0.0.1:{port}{path}", connections, round(seconds))
    output = _run([sys.executable, "-m", "benchmarks._load", str(port), path, str(connections), str(seconds)])
    return Load(**json.loads(output))


@contextmanager
def steady_load(port: int, path: str, rate: float, seconds: float) -> Iterator[None]:
    """Send requests at a moderate rate meanwhile, from another process.

    Args:
        port: The server's.
        path: What is asked for.
        rate: How many requests there are in a second, over ten connections.
        seconds: When it ends in any case.
    """
    arguments = (str(port), path, "10", str(seconds), str(rate))
    command = [sys.executable, "-m", "benchmarks._load", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def pin(pid: int, processor: int) -> None:
    """Keep a process on one processor, where that can be done."""
    if hasattr(os, "sched_setaffinity"):
        available = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(pid, {available[processor]})


def _run(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, check=True, text=True, preexec_fn=_move).stdout


def _move() -> None:
    pin(0, -1)


def _wrk(wrk: str, url: str, connections: int, seconds: int) -> Load:
    output = _run([wrk, "--latency", "-t1", f"-c{connections}", f"-d{seconds}s", url])
    done = re.search(r"(\d+) requests in ([\d.]+)s", output)
    latency = dict(re.findall(r"^\s+(50|99)%\s+([\d.]+\w+)$", output, re.MULTILINE))
    if "Non-2xx" in output or done is None or len(latency) != 2:
        raise RuntimeError(output)
    return Load(int(done[1]), float(done[2]), _seconds(latency["50"]), _seconds(latency["99"]))


def _seconds(text: str) -> float:
    value, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return float(value) * UNITS[unit]


# --- Our own


async def _client(port: int, path: str, until: float, pause: float) -> list[float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = REQUEST % path.encode()
    taken = []
    while (start := perf_counter()) < until:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(head)
        await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
        taken.append(perf_counter() - start)
        if pause:
            await asyncio.sleep(pause)
    writer.close()
    return taken


async def _main(port: str, path: str, connections: str, seconds: str, rate: str = "0") -> None:
    until = perf_counter() + float(seconds)
    pause = int(connections) / float(rate) if float(rate) else 0.0
    clients = (_client(int(port), path, until, pause) for _ in range(int(connections)))
    taken = [time for times in await asyncio.gather(*clients) for time in times]
    done = {"requests": len(taken), "seconds": float(seconds)}
    print(json.dumps({**done, "p50": percentile(taken, 50), "p99": percentile(taken, 99)}))


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
