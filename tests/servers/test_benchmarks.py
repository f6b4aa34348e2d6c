"""The benchmarks run; what they measure here means nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.process import ROOT

CORE = ("import_time", "core", "growth", "registry")
REQUESTS = ("in_process", "throughput", "waiting", "disconnect", "memory", "streams")


@pytest.mark.parametrize("names", [CORE, REQUESTS], ids=["core", "requests"])
def test_every_benchmark_measures_something(names: tuple[str, ...], tmp_path: Path) -> None:
    """
    In the shortest way that reaches all of it.
    """
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    command = [sys.executable, "-m", "benchmarks", *names, "--tiny", "--out", str(tmp_path)]
    env = os.environ | {"PYTHONPATH": path}
    result = subprocess.run(command, env=env, capture_output=True, check=False, text=True, timeout=120)

    assert result.returncode == 0, result.stderr
    record = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert set(record) == set(names)
    assert all(run["figures"] for run in record.values())
