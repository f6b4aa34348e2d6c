"""Find a Chromium for the browser tests, or install one: ``python tools/install_chromium.py``.

Debian's package is enough, and has nothing to do with the browsers that Playwright brings along.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    """Return the path of a Chromium: what the variable CHROMIUM says, or the first that is installed."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def install_chromium() -> None:
    """Install Debian's package, which takes root and about 15 seconds."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
        subprocess.run(["apt-get", "-q", *arguments], check=True, env=environment)


def main() -> None:
    if find_chromium() is None and shutil.which("apt-get") and os.geteuid() == 0:
        install_chromium()
    path = find_chromium()
    if path is None:
        sys.exit("There is no Chromium: install one (on Debian `apt-get install chromium`), or set CHROMIUM.")
    print(path)


if __name__ == "__main__":
    main()
