"""Every check of this project, one session each: `nox -l` lists them."""

from __future__ import annotations

from pathlib import Path

import nox

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)

nox.needs_version = ">=2026.4"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"  # a missing Python is skipped; in CI, that is an error
nox.options.reuse_venv = "yes"
nox.options.error_on_external_run = True
nox.options.sessions = ["lint", "types", "tests", "coverage", "docs"]


def group(name: str) -> list[str]:
    return nox.project.dependency_groups(PYPROJECT, name)


def pytest_with_coverage(session: nox.Session, *args: str) -> None:
    # A data file per session: running one again replaces what it measured before.
    env = {"COVERAGE_FILE": str(Path.cwd() / f".coverage.{session.name}")}
    session.run("coverage", "erase", env=env)
    session.run("coverage", "run", "-m", "pytest", *args, *session.posargs, env=env)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Test the built package on both backends, without real servers."""
    session.install(".[all]", *group("tests"))
    # Measuring doubles the time, and what one Python alone runs is not counted: it is done on one of them.
    if session.python == PYTHONS[-1]:
        pytest_with_coverage(session, "-m", "not servers")
    else:
        session.run("pytest", "-m", "not servers", *session.posargs)


@nox.session
def tests_asyncio_only(session: nox.Session) -> None:
    """Test where Trio is not installed."""
    session.install(".[fastapi]", *group("tests"))
    session.run("python", "-c", "import importlib.util; assert not importlib.util.find_spec('trio')")
    session.run("pytest", "-m", "not servers", *session.posargs)


@nox.session(python=[PYTHONS[0], PYTHONS[-1]])
def tests_lowest(session: nox.Session) -> None:
    """Test with the oldest versions that we claim to work with."""
    session.install("uv")
    session.run("uv", "pip", "install", "--resolution=lowest-direct", ".[all]", *group("tests"))
    session.run("pytest", "-m", "not servers", *session.posargs)


@nox.session
def servers(session: nox.Session) -> None:
    """Test with real servers on real sockets."""
    session.install(".[all]", *group("servers"))
    session.run("pytest", "-m", "servers and not browser", *session.posargs)


@nox.session
def browser(session: nox.Session) -> None:
    """Test the examples in a real browser, which is installed if it can be."""
    session.install(".[all]", *group("browser"))
    session.run("python", "tools/install_chromium.py")
    session.run("pytest", "-m", "browser", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Combine what the sessions with tests measured: it must be everything."""
    if not list(Path.cwd().glob(".coverage.*")):
        session.error(f"Nothing was measured yet: run `nox -s tests-{PYTHONS[-1]} coverage`.")
    session.install("coverage[toml]")
    session.run("coverage", "combine")
    session.run("coverage", "report")


@nox.session
def lint(session: nox.Session) -> None:
    """Check the format, the code, the layers and the spelling."""
    session.install(*group("lint"))
    session.run("ruff", "format", "--check")
    session.run("ruff", "check")
    session.run("lint-imports", "--no-cache", env={"PYTHONPATH": "src"})
    session.run("codespell")
    session.run("python", "tools/spelling.py")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types, with two checkers, and that every public name has one."""
    session.install(".[all]", *group("types"))
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--verifytypes", "hother.cancelable", "--ignoreexternal")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a broken link is an error."""
    session.install(*group("docs"))
    session.run("mkdocs", "build", "--strict")


@nox.session
def demo(session: nox.Session) -> None:
    """See requests being cancelled."""
    session.install(".[demo]")
    session.run("python", "-m", "hother.cancelable", "demo", *session.posargs)


@nox.session
def doctor(session: nox.Session) -> None:
    """Examine all servers; `nox -s doctor -- --json seen.json` is what the page on servers is made from."""
    session.install(".[all]", *group("servers"))
    session.run("python", "-m", "hother.cancelable", "doctor", *session.posargs)


@nox.session(python=PYTHONS[-1])  # the one that all peers run on
def benchmarks(session: nox.Session) -> None:
    """Measure what it costs: everything, or only what is named (`nox -s benchmarks -- core --quick`)."""
    session.install(".[all]", *group("benchmarks"))
    env = {}
    if session.python == PYTHONS[-1]:  # or what --force-python says, which may be too old for it
        # The release before this one has the same name: it gets a directory that only its processes use.
        old = str(Path(session.virtualenv.location, "release-0.11"))
        session.install("--target", old, "--no-deps", "hother-cancelable>=0.11,<0.12")
        env["BENCHMARKS_OLD"] = old
    session.run("python", "-m", "benchmarks", *session.posargs, env=env)
