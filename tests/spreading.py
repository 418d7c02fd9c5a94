"""How `pytest -n` spreads the tests over its processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    import pytest

_TOGETHER = ("tests/cache_runtime/cluster",)
"""Packages whose files share their servers."""
_FIRST = (
    "tests/cache_runtime/cluster",
    "tests/docs/test_code.py",
)
"""What takes longest: begun first, so that nothing long is left for one process alone at the end."""


def file_or_package(nodeid: str) -> str:
    file = nodeid.partition("::")[0]
    return next((package for package in _TOGETHER if file.startswith(f"{package}/")), file)


def longest_first(items: list[pytest.Item]) -> None:
    order = {scope: number for number, scope in enumerate(_FIRST)}
    items.sort(key=lambda item: order.get(file_or_package(item.nodeid), len(order)))


class ByFile(LoadScopeScheduling):  # type: ignore[misc] # it publishes no types
    """A file's tests run in one process, in their order: they share servers. Who is done takes the next file."""

    def _split_scope(self, nodeid: str) -> str:
        return file_or_package(nodeid)
