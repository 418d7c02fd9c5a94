"""Datasets for training: declared in YAML, versioned like git, cached on this node.

import ds

ds.apply("dataset.yaml")
digits = ds.Dataset("digits")
digits.import_sources()
digits.commit("first version")
digits.load("main")
with ds.open("ds://digits@main/labels/0042.json") as file:
    print(file.read())
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # `typing` takes 10 ms, in which Ctrl-C would print a traceback
if TYPE_CHECKING:
    from typing import Any

    from ds.dataset import Dataset, apply
    from ds.loading import LoadOptions
    from ds.settings import Settings
    from ds.targets import Target
    from ds.transactions import open, transaction
    from ds.writing import Transaction

__all__ = ["Dataset", "LoadOptions", "Settings", "Target", "Transaction", "apply", "open", "transaction"]

_HOMES = {
    "Dataset": "ds.dataset",
    "LoadOptions": "ds.loading",
    "Settings": "ds.settings",
    "Target": "ds.targets",
    "Transaction": "ds.writing",
    "apply": "ds.dataset",
    "open": "ds.transactions",
    "transaction": "ds.transactions",
}


def __getattr__(name: str) -> Any:
    """Load a name when it is first used: the command line and fsspec import this package before they need any."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
