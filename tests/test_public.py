"""The package as its users see it."""

from __future__ import annotations

import doctest
import importlib.resources
import inspect
import subprocess
import sys
from typing import Any

import pytest

import hother
import hother.cancelable

ALIASES = {"CompositeSource": "AnyOfSource"}

CORE = {
    "AllOfSource",
    "AnyOfSource",
    "Cancelable",
    "Cancelation",
    "CancelationError",
    "CancelationReason",
    "CancelationToken",
    "CompositeSource",
    "ConditionCancelation",
    "ConditionSource",
    "LifecycleError",
    "ManualCancelation",
    "OperationContext",
    "OperationStatus",
    "ParentCancelation",
    "ResourceConditionSource",
    "SignalCancelation",
    "SignalSource",
    "TimeoutCancelation",
    "TimeoutSource",
    "current_operation",
}


each_name = pytest.mark.parametrize(
    ("name", "value"),
    [pytest.param(name, getattr(hother.cancelable, name), id=name) for name in hother.cancelable.__all__],
)


def test_the_names_that_users_know_are_there() -> None:
    """
    Whoever imported them from the package before still can.
    """
    assert set(hother.cancelable.__all__) >= CORE


def test_all_is_in_order() -> None:
    """
    No name twice, and each where one looks for it.
    """
    assert list(hother.cancelable.__all__) == sorted(set(hother.cancelable.__all__))


@each_name
def test_a_public_name_shows_where_it_is_public(name: str, value: Any) -> None:
    """
    Tracebacks, reprs and pickles name the module that users import from.
    """
    assert value.__module__ == "hother.cancelable"
    assert value.__name__ == value.__qualname__ == ALIASES.get(name, name)


@each_name
def test_a_public_name_is_documented(name: str, value: Any) -> None:
    """
    So are the public methods of a class.
    """
    assert inspect.getdoc(value)

    if inspect.isclass(value) and not issubclass(value, BaseException):
        members = [member for member in vars(value).items() if not member[0].startswith("_")]
        undocumented = [
            member
            for member, it in members
            if (inspect.isfunction(it) or isinstance(it, (property, classmethod))) and not inspect.getdoc(it)
        ]

        assert undocumented == []


@each_name
def test_the_examples_of_a_public_name_are_true(name: str, value: Any) -> None:
    """
    What a docstring shows is what happens.
    """
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    module = sys.modules["hother.cancelable"]
    for test in doctest.DocTestFinder().find(value, name, module, globs=dict(vars(module))):
        test.globs.update({public: getattr(module, public) for public in module.__all__})

        assert runner.run(test).failed == 0


def test_an_unknown_name_is_an_attribute_error() -> None:
    """
    As with any module, and it names the module.
    """
    with pytest.raises(AttributeError, match=r"'hother\.cancelable' has no attribute 'Nothing'"):
        hother.cancelable.Nothing  # noqa: B018


def test_dir_lists_the_public_names() -> None:
    """
    An interactive shell can complete them.
    """
    assert set(dir(hother.cancelable)) >= set(hother.cancelable.__all__)


def test_a_star_import_brings_the_public_names() -> None:
    """
    All of them, and nothing else.
    """
    namespace: dict[str, Any] = {}

    exec("from hother.cancelable import *", namespace)

    assert set(namespace) - {"__builtins__"} == set(hother.cancelable.__all__)


def test_the_namespace_belongs_to_nobody() -> None:
    """
    Other distributions may put their packages beside ours.
    """
    assert hother.__file__ is None


def test_the_package_is_typed() -> None:
    """
    Type checkers read its annotations.
    """
    assert importlib.resources.files(hother.cancelable).joinpath("py.typed").is_file()


def test_importing_the_package_imports_no_optional_package_and_no_backend() -> None:
    """
    Nobody pays for what they do not use, not even those who name everything.
    """
    program = (
        "from hother.cancelable import *; import sys; print(*{name.split('.')[0] for name in sys.modules})"
    )

    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    imported = set(process.stdout.split())
    assert "hother" in imported
    assert not imported & {
        "asyncio", "trio", "fastapi", "starlette", "pydantic", "psutil", "httpx", "uvicorn", "pytest", "rich",
    }  # fmt: skip
