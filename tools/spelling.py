"""House spelling: one l in Cancelable and Cancelation, two in cancelled and cancelling.

Run without arguments for the whole project, or with the files to look at. A line that quotes
another library stays as it is if it says so: `spelling: theirs`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

WRONG = re.compile(r"cancel(l(ation|able)|ed|ing)", re.IGNORECASE)
THEIRS = re.compile(r"spelling: theirs|CancellationToken|OperationCanceled|IfCancellationRequested")
PLACES = ("README.md", "benchmarks", "changes", "docs", "examples", "src", "tests")
KINDS = {".md", ".py", ".toml", ".txt", ".yml"}


def files() -> Iterator[Path]:
    for place in map(Path, PLACES):
        yield from (path for path in (place, *place.rglob("*")) if path.suffix in KINDS)


def mistakes(path: Path) -> Iterator[str]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if (wrong := WRONG.search(line)) and not THEIRS.search(line):
            yield f"{path}:{number}: {wrong[0]}"


if __name__ == "__main__":
    paths = list(map(Path, sys.argv[1:])) or [path for path in files() if path.is_file()]
    sys.exit("\n".join(found for path in paths for found in mistakes(path)) or None)
