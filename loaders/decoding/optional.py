"""Libraries that decode faster, where they are installed."""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from typing import Any

from loaders.errors import MissingExtraError


@cache
def optional(name: str) -> Any:
    """Import a library; None if it is not installed.

    cv2 is told to use no threads of its own, unless the user has imported it before.
    """
    is_first = name not in sys.modules
    try:
        module = import_module(name)
    except ImportError:
        return None
    if name == "cv2" and is_first:
        module.setNumThreads(0)  # the batches are decoded in parallel; a pool below each decoder would only fight
    return module


def required(name: str, *, what: str, package: str, extra: str) -> Any:
    """Import a library.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtraError(f"{what} needs {package}: pip install 'forebay[{extra}]'") from error
