"""What the doctor finds and is not mended yet."""

from __future__ import annotations

KNOWN_FAULTS: set[tuple[str, str]] = set()
"""Pairs of a server and a scenario."""
