"""Functions of the user's by name, and which version of their code this is."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from loaders.errors import CodeError

if TYPE_CHECKING:
    from collections.abc import Callable

_SHOWN_DIGITS = 16


def find_callable(name: str) -> Callable[..., Any]:
    """Import `module:function`; the function may be an attribute of an attribute.

    Raises:
        CodeError: If there is no such module or function.
    """
    module_name, _, path = name.partition(":")
    if not module_name or not path:
        raise CodeError(f"{name!r} names no function; write module:function, such as mypackage.transforms:resize")
    try:
        found: Any = importlib.import_module(module_name)
        for part in path.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as error:
        raise CodeError(
            f"cannot import {module_name!r} of {name!r}: {error}; install it, or set PYTHONPATH to where it lies"
        ) from error
    except AttributeError as error:
        raise CodeError(f"module {module_name!r} has no {path!r}: {error}") from error
    except Exception as error:  # a module of the user's may do anything
        raise CodeError(f"importing {module_name!r} failed: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise CodeError(f"{name} is no function but a {type(found).__name__}")
    made: Callable[..., Any] = found
    return made


def name_of(function: Callable[..., Any]) -> str:
    """Return `module:function`."""
    module = getattr(function, "__module__", None) or "?"
    return f"{module}:{getattr(function, '__qualname__', None) or type(function).__qualname__}"


def importable_name(function: Callable[..., Any]) -> str | None:
    """Return the name under which other processes find a function; None: they cannot."""
    name = name_of(function)
    if name.startswith("__main__:"):
        return None
    try:
        return name if find_callable(name) is function else None
    except CodeError:
        return None


def version_of(function: Callable[..., Any]) -> str:
    """Return a hash of the file that a function lies in; "" if it lies in none.

    What it calls in other files does not count: say its version, where that matters.
    """
    try:
        file = inspect.getsourcefile(inspect.unwrap(function))
        return "" if file is None else blake3(Path(file).read_bytes()).hexdigest()[:_SHOWN_DIGITS]
    except (TypeError, OSError):
        return ""
