"""What every store must do, as pytest classes: subclass one, give it a store, and run it.

    class TestMyStore(StoreContract):
        @pytest.fixture
        def place(self) -> Place:
            return open_store("my://host/"), "a/prefix/"

Or, without code, `pytest --forebay-store=my://host/a/prefix/`; see `sources.contract.plugin`.

What needs pytest is imported when it is asked for, and so is what needs a store: pytest itself loads the plugin beside
this file on every start.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sources.contract.kinds import ReadOnlyContract, StoreContract, SwapContract
    from sources.contract.places import DeleteBehind, Place, PutBehind

__all__ = ["DeleteBehind", "Place", "PutBehind", "ReadOnlyContract", "StoreContract", "SwapContract"]

_MODULES = {
    "DeleteBehind": "places",
    "Place": "places",
    "PutBehind": "places",
    "ReadOnlyContract": "kinds",
    "StoreContract": "kinds",
    "SwapContract": "kinds",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
