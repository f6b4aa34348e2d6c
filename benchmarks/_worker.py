"""Processes that measure one candidate each, when they are told to.

So candidates do not find each other's garbage, and 0.11, which has the name of ours, can be one of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any


class Worker:
    """A process in which a function is called, again and again."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, *arguments: Any) -> Any:
        """Call the function there, and return what it returns; both must be fit for JSON.

        Raises:
            RuntimeError: If it raises; its traceback is on the standard error.
        """
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            raise RuntimeError(f"{self._process.args!r} failed with {arguments}")
        return json.loads(line)


@contextmanager
def worker(function: str) -> Iterator[Worker]:
    """Have a process for the length of a block.

    Args:
        function: What is called there, as ``module:name``.
    """
    command = [sys.executable, "-m", "benchmarks._worker", function]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        yield Worker(process)  # leaving Popen's block closes its standard input, which ends it


def _main(path: str) -> None:
    module, _, name = path.partition(":")
    function = getattr(import_module(module), name)
    for line in sys.stdin:
        print(json.dumps(function(*json.loads(line))), flush=True)


if __name__ == "__main__":
    _main(sys.argv[1])
