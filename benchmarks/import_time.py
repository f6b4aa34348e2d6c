"""What it costs to import the library, beside AnyIO, in fresh interpreters that take turns.

Both load their modules when a name is first used. So the second line imports a name of each.
"""

from __future__ import annotations

import os
import subprocess
import sys
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

ROUNDS = 25
PAIRS = {
    "import hother.cancelable": "import anyio",
    "from hother.cancelable import Cancelable": "from anyio import CancelScope, Event, lowlevel",
}


def seconds(code: str, cache: str) -> float:
    # Compiled once, as installed packages are, whatever is set here.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": cache}
    start = perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    return perf_counter() - start


def compare(ours: str, floor: str, cache: str) -> None:
    times: dict[str, list[float]] = {"pass": [], ours: [], floor: []}
    for measured in [False] + [True] * ROUNDS:  # the first round warms the caches
        for code, values in times.items():
            value = seconds(code, cache)
            if measured:
                values.append(value)
    start = median(times["pass"])
    our_time, floor_time = median(times[ours]) - start, median(times[floor]) - start
    pairs = sorted((o - start) / (f - start) for o, f in zip(times[ours], times[floor], strict=True))
    print(f"{our_time * 1000:6.1f} ms  {ours}")
    print(f"{floor_time * 1000:6.1f} ms  {floor}")
    spread = f"{pairs[0]:.2f} to {pairs[-1]:.2f} pair by pair"
    print(f"{our_time / floor_time:6.2f}     ratio of the medians; {spread}")


def main() -> None:
    with TemporaryDirectory() as cache:
        for ours, floor in PAIRS.items():
            compare(ours, floor, cache)


if __name__ == "__main__":
    main()
