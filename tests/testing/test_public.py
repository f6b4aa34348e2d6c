"""The test kit as its users see it."""

from __future__ import annotations

import doctest
import inspect
from typing import Any, get_origin

import pytest

from hother.cancelable import testing

THINGS = [
    pytest.param(name, value, id=name)
    for name, value in ((name, getattr(testing, name)) for name in testing.__all__)
    if inspect.isfunction(value) or (inspect.isclass(value) and not get_origin(value))
]


def test_all_is_in_order() -> None:
    """
    No name twice, and each where one looks for it: constants, classes, functions.
    """
    names = list(testing.__all__)

    assert len(names) == len(set(names))
    assert names == sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))


@pytest.mark.parametrize(("name", "value"), THINGS)
def test_a_public_name_shows_where_it_is_public_and_is_documented(name: str, value: Any) -> None:
    """
    So are the public methods of a class.
    """
    assert value.__module__ == "hother.cancelable.testing"
    assert value.__name__ == name
    assert inspect.getdoc(value)

    if inspect.isclass(value):
        members = [it for it in vars(value).items() if inspect.isfunction(it[1])]
        assert [member for member, it in members if member[0] != "_" and not inspect.getdoc(it)] == []


def test_the_module_has_a_tour_of_itself() -> None:
    """
    It names what there is.
    """
    assert testing.__doc__ is not None
    for name in ("virtual_backend", "sweep", "Recorder", "Peer", "StreamSimulator", "LeakCheck"):
        assert f"`{name}`" in testing.__doc__


def test_the_examples_are_true() -> None:
    """
    What a docstring shows is what happens.
    """
    import asyncio

    import anyio

    names = {"asyncio": asyncio, "anyio": anyio, **vars(testing)}
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    for name in ("AutojumpEventLoop", "virtual_backend"):
        for example in finder.find(getattr(testing, name), name, testing, globs=dict(names)):
            assert runner.run(example).failed == 0
