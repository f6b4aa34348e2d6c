"""Where the errors of onlookers go: callbacks, observers and whoever else is only told."""

from __future__ import annotations

import sys
from collections.abc import Iterable


def report(errors: Iterable[Exception]) -> None:
    """Report errors of onlookers: they must be seen, and must not break what was looked at.

    They go where uncaught exceptions of a program go (standard error, or a crash reporter), since
    there is no caller who could handle them.
    """
    for error in errors:
        sys.excepthook(type(error), error, error.__traceback__)
