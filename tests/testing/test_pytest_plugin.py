"""The pytest plugin, as a project that has the package installed gets it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from anyio import get_available_backends

import hother.cancelable

pytest_plugins = "pytester"

# Python 3.13.0's argparse, when the oldest pytest 9 gives it no file.
pytestmark = pytest.mark.filterwarnings("ignore:Do not expect:UserWarning")

NUMBER_OF_BACKENDS = len(get_available_backends())

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"

ENTRY_POINT = re.search(
    r"^\[project\.entry-points\.pytest11\]\n(\w+) = \"([\w.]+)\"$", PYPROJECT.read_text("utf-8"), re.MULTILINE
)


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """
    A project in which the plugin is found by the entry point that pyproject.toml declares.
    """
    assert ENTRY_POINT is not None
    site = pytester.mkdir("site")
    metadata = site / "the_package-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: the-package\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(f"[pytest11]\n{ENTRY_POINT[1]} = {ENTRY_POINT[2]}\n")
    source = str(Path(hother.cancelable.__file__).parents[2])
    pytester.syspathinsert(site)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), source, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", raising=False)
    return pytester


def test_the_fixtures(project: pytest.Pytester) -> None:
    """
    Each is what its name says, and types are told apart.
    """
    project.makeini("[pytest]\nanyio_mode = auto\ncancelable_virtual_clock = true\n")
    project.makepyfile(
        """
        import anyio
        import pytest
        from hother.cancelable import Cancelable, TimeoutCancelation, cancelable_stream
        from hother.cancelable.testing import After, Peer, Recorder, StreamSimulator, sweep

        async def test_recorder(cancelable_recorder):
            with pytest.raises(TimeoutCancelation):
                async with Cancelable(timeout=3600, name="report"):
                    await anyio.sleep(7200)
            cancelable_recorder.assert_cancelled("report")

        def test_sync(cancelable_sweep, cancelable_peer, cancelable_stream_simulator):
            assert cancelable_sweep is sweep
            assert cancelable_peer is Peer
            assert cancelable_stream_simulator is StreamSimulator

        async def test_sweep(cancelable_sweep):
            assert await cancelable_sweep(lambda: anyio.sleep(3600))

        async def test_no_leak(cancelable_leak_check):
            async with Cancelable(), anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep, 1)
        """
    )

    project.runpytest_inprocess("-W", "error").assert_outcomes(passed=3 * NUMBER_OF_BACKENDS + 1)


def test_the_leak_check(project: pytest.Pytester) -> None:
    """
    A test that leaves something behind fails, and only if it asks for that.
    """
    project.makepyfile(
        """
        import pytest
        from hother.cancelable import Cancelable, CancelationToken

        pytestmark = pytest.mark.anyio
        token = CancelationToken()

        def test_asks(cancelable_leak_check):
            token.add_callback(print)

        class TestClass:
            def test_asks(self, cancelable_leak_check, tmp_path):
                token.add_callback(print)

            async def test_asks_async(self, cancelable_leak_check, anyio_backend_name):
                token.add_callback(print)

        def test_does_not_ask():
            token.add_callback(print)

        async def test_is_fine(cancelable_leak_check):
            async with Cancelable(tokens=[token]):
                pass

        def test_is_fine_too(cancelable_leak_check):
            token.child()
        """
    )

    result = project.runpytest_inprocess("-p", "no:unraisableexception")

    result.assert_outcomes(failed=2 + NUMBER_OF_BACKENDS, passed=2 + NUMBER_OF_BACKENDS)
    result.stdout.fnmatch_lines(["*left behind:", "*1 callback on <CancelationToken*"])


CLOCK_TESTS = """
    import anyio
    import pytest

    def hour():
        return anyio.current_time()

    async def test_virtual(anyio_backend):
        await anyio.sleep(3600)
        assert anyio.current_time() == 3600

    @pytest.mark.cancelable_real_clock
    async def test_real(anyio_backend_name):
        with anyio.move_on_after(0.001):
            await anyio.sleep(3600)
        assert anyio.current_time() != 0.001
    """


def test_the_virtual_clock_is_for_who_asks(project: pytest.Pytester) -> None:
    """
    By an option; single tests may have the real clock.
    """
    project.makeini(
        "[pytest]\nanyio_mode = auto\ncancelable_virtual_clock = true\naddopts = --strict-markers\n"
    )
    project.makepyfile(CLOCK_TESTS)

    project.runpytest_inprocess().assert_outcomes(passed=2 * NUMBER_OF_BACKENDS)


def test_a_projects_own_backends_go_first(project: pytest.Pytester) -> None:
    """
    The option overrides AnyIO's fixture, and no other.
    """
    project.makeini("[pytest]\nanyio_mode = auto\ncancelable_virtual_clock = true\n")
    project.makeconftest(
        """
        import pytest
        from hother.cancelable.testing import virtual_backend

        @pytest.fixture
        def anyio_backend():
            return virtual_backend("asyncio")
        """
    )
    project.makepyfile(CLOCK_TESTS)

    project.runpytest_inprocess("-k", "virtual").assert_outcomes(passed=1, deselected=1)


def test_nothing_happens_to_projects_that_do_not_use_it(project: pytest.Pytester) -> None:
    """
    No module of ours but the plugin itself is imported, and AnyIO's fixture is AnyIO's.
    """
    project.makepyfile(
        """
        import sys

        def test_imports():
            ours = {name for name in sys.modules if name.startswith("hother")}
            assert ours == {"hother", "hother.cancelable", "hother.cancelable.pytest_plugin"}

        def test_backend(request, anyio_backend):
            assert isinstance(anyio_backend, str)
            assert not request.config.pluginmanager.has_plugin("hother_cancelable_backends")
        """
    )

    project.runpytest_subprocess().assert_outcomes(passed=1 + NUMBER_OF_BACKENDS)


def test_it_can_be_left_out(project: pytest.Pytester) -> None:
    """
    By the name of its entry point.
    """
    project.makepyfile(
        """
        import sys

        def test_imports(request):
            assert "hother.cancelable.pytest_plugin" not in sys.modules
            assert not request.config.pluginmanager.has_plugin("hother_cancelable")
        """
    )

    project.runpytest_subprocess("-p", "no:hother_cancelable").assert_outcomes(passed=1)


def test_importing_the_plugin_imports_nothing_else() -> None:
    """
    Every start of pytest pays for it, in every project that has the package installed.
    """
    program = (
        "import pytest, sys; before = set(sys.modules); "
        "import hother.cancelable.pytest_plugin; print(*sorted(set(sys.modules) - before))"
    )

    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert process.stdout.split() == ["hother", "hother.cancelable", "hother.cancelable.pytest_plugin"]


def test_the_installed_package_has_the_entry_point() -> None:
    """
    Where it was installed from what is built, rather than from a source tree of another day.
    """
    assert ENTRY_POINT is not None
    installed = [it for it in entry_points(group="pytest11") if it.name == ENTRY_POINT[1]]
    if not installed:
        pytest.skip("the installed metadata is older than the entry point")

    assert {it.value for it in installed} == {ENTRY_POINT[2]}
