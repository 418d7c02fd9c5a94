"""What is loaded when it is first used: names of packages (PEP 562), and libraries. A command loads what it needs.

An import inside of a function does the same for one function; these are for what many modules name.
"""

from __future__ import annotations

import sys
from importlib import import_module

TYPE_CHECKING = False  # `typing` itself takes a while
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any


def lazily(package: str, homes: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package.

    It belongs below `if TYPE_CHECKING: ... else:`, whose first half imports the same names: a type checker would take
    every name for exported otherwise. No name may be that of a module of the package, which would take its place once
    it is loaded. `tests/test_exports.py` checks both.

    Args:
        package: Its `__name__`.
        homes: The names of each module, by the module's name below the package.
    """
    home_of = {name: f"{package}.{module}" for module, names in homes.items() for name in names}

    def load(name: str) -> Any:
        home = home_of.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = getattr(import_module(home), name)
        setattr(sys.modules[package], name, found)  # so that this is not asked again
        return found

    return load


class LazyModule:
    """Has the attributes of a module, which is imported when the first of them is asked for.

    Args:
        name: As in `import`.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        """Import the module, and remember what it has."""
        found = getattr(import_module(self._name), name)
        setattr(self, name, found)
        return found
