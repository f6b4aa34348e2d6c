"""How long a handler runs on after its client has left: ``curl --max-time``, a hundred times."""

from __future__ import annotations

import subprocess
import sys
from statistics import median
from time import monotonic

from tests.servers.process import ServerProcess, running

APP = "tests.servers.fastapi_app:app"
KINDS = ("uvicorn-httptools-uvloop", "uvicorn-asyncio", "hypercorn-trio")
PATHS = ("/data", "/slow", "/stream")
TRIES = 100


def latency(server: ServerProcess, path: str, key: str) -> float:
    """Let curl leave; return how many milliseconds later the handler had stopped."""
    curl = ["curl", "-sN", "--max-time", "0.15", "-o", "/dev/null", f"{server.url}{path}?{key}"]
    subprocess.run(curl, check=False)
    left = monotonic()  # when curl has exited: a little after its connection was closed
    server.wait_event("running", key)
    return max(0.0, (server.wait_event("stopped", key).at - left) * 1000)


def main() -> None:
    tries = int(sys.argv[1]) if len(sys.argv) > 1 else TRIES
    print(f"milliseconds from curl's exit to the handler's end, {tries} tries")
    print(f"{'server':26} {'path':8} {'median':>10} {'maximum':>10}")
    for kind in KINDS:
        with running(kind, APP) as server:
            for path in PATHS:
                times = [latency(server, path, f"{path}-{n}") for n in range(tries)]
                print(f"{kind:26} {path:8} {median(times):10.2f} {max(times):10.2f}")


if __name__ == "__main__":
    main()
