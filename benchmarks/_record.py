"""What a run leaves: a file with its figures, and with what is needed to make sense of them later."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from time import gmtime, strftime
from typing import Any

from ._figures import Figure
from ._plan import Level

PACKAGES = (
    *("anyio", "fastapi", "httptools", "hypercorn", "starlette", "trio", "uvicorn", "uvloop"),
    *("aiofence", "fastapi-disconnect"),
)

Record = dict[str, dict[str, Any]]


def facts(level: Level) -> dict[str, Any]:
    """Return when and with what a benchmark runs; nothing about whose machine it is."""
    return {
        "at": strftime("%Y-%m-%d", gmtime()),
        "level": level,
        "python": f"{sys.implementation.name} {sys.version.split()[0]}",
        "processors": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "packages": {name: found for name in PACKAGES if (found := _version(name))} | _old_release(),
    }


def read(path: Path) -> Record:
    """Return what is in a file; nothing if there is none."""
    if not path.exists():
        return {}
    record: Record = json.loads(path.read_text(encoding="utf-8"))
    for run in record.values():
        run["figures"] = [Figure.from_json(it) for it in run["figures"]]
    return record


def keep(path: Path, name: str, about: dict[str, Any], figures: Iterable[Figure]) -> None:
    """Write the figures of one benchmark to a file, in the place of those from before."""
    record = read(path)
    record[name] = {**about, "figures": list(figures)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_text(record), encoding="utf-8")


def _text(record: Record) -> str:
    """Return the file's text: a line for each figure, so that a change of one is a change of one line."""
    runs = []
    for name, run in record.items():
        about = {key: value for key, value in run.items() if key != "figures"}
        lines = [json.dumps(it.as_json(), ensure_ascii=False) for it in run["figures"]]
        inner = json.dumps(about, ensure_ascii=False)[:-1]
        runs.append(f'{json.dumps(name)}: {inner}, "figures": [\n' + ",\n".join(lines) + "\n]}")
    return "{\n" + ",\n".join(runs) + "\n}\n"


def _old_release() -> dict[str, str]:
    directory = os.environ.get("BENCHMARKS_OLD", "")
    found = [it.version for it in distributions(path=[directory])] if directory else []
    return {"hother-cancelable": found[0]} if found else {}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
