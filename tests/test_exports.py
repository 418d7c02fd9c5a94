"""Packages that load their names late say the same in their three lists."""

from __future__ import annotations

import ast
import pkgutil
import tomllib
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sources import opening

ROOT = Path(__file__).parent.parent
PACKAGES = {
    str(file.parent.relative_to(ROOT)).replace("/", "."): file.read_text()
    for top in ("cache_runtime", "dataset_controller", "ds", "loaders", "sources", "versioning")
    for file in sorted((ROOT / top).rglob("__init__.py"))
}
LAZY = [package for package, text in PACKAGES.items() if "= lazily(" in text]


def lists(package: str) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """What type checkers import, what is loaded late, both by name with its module, and `__all__`."""
    tree = ast.parse((ROOT / package.replace(".", "/") / "__init__.py").read_text())
    (choice,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = {
        alias.name: (node.module or "").removeprefix(f"{package}.")
        for node in choice.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    (late,) = choice.orelse
    assert isinstance(late, ast.Assign)
    assert isinstance(late.value, ast.Call)
    homes: dict[str, Any] = ast.literal_eval(late.value.args[1])
    return imported, {name: home for home, names in homes.items() for name in names}, import_module(package).__all__


def test_there_are_some() -> None:
    assert {"cache_runtime", "loaders", "sources", "versioning", "versioning.worktree"} <= set(LAZY)


@pytest.mark.parametrize("package", LAZY)
def test_type_checkers_and_python_find_the_same_names(package: str) -> None:
    imported, late, exported = lists(package)
    assert imported == late
    assert set(exported) == set(late)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_name_of_a_package_is_that_of_a_module_in_it(package: str) -> None:
    module = import_module(package)
    modules = {found.name for found in pkgutil.iter_modules(module.__path__)}
    assert modules.isdisjoint(getattr(module, "__all__", ()))  # the module takes its place when it is loaded
    for name in modules & vars(module).keys():
        assert isinstance(getattr(module, name), ModuleType), name


@pytest.mark.parametrize("package", LAZY)
def test_every_name_is_there(package: str) -> None:
    module = import_module(package)
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nonsense'"):
        module.nonsense  # noqa: B018


def test_the_schemes_that_are_known_at_once_are_those_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["forebay.sources"] == opening._OURS
