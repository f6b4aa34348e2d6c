"""What it costs to import the library, beside AnyIO, in fresh interpreters that take turns.

Both load their modules when a name is first used. So the second comparison imports a name of each. Their
files are compiled, as installed packages are; the time of an interpreter that does nothing is taken off.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from tempfile import TemporaryDirectory
from time import perf_counter

from ._figures import Figure, at_most, figure, in_turns
from ._plan import Plan

PAIRS = {
    "import hother.cancelable": "import anyio",
    "from hother.cancelable import Cancelable": "from anyio import CancelScope, Event, lowlevel",
}
TARGET = at_most(1.2)


def run(plan: Plan) -> Iterator[Figure]:
    """Measure."""
    rounds = plan.pick(full=25, quick=11, tiny=1)
    with TemporaryDirectory() as cache:
        for number, (ours, floor) in enumerate(PAIRS.items()):
            (taken,) = in_turns(("pass", floor, ours), rounds, lambda code: (_seconds(code, cache),))
            start = min(taken["pass"])
            pairs = [
                (one - start, other - start) for one, other in zip(taken[ours], taken[floor], strict=True)
            ]
            yield figure("import", "any", ours, floor, pairs, target=None if number else TARGET)


def _seconds(code: str, cache: str) -> float:
    # Compiled once, as installed packages are, whatever is set here.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": cache}
    start = perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    return perf_counter() - start
