"""Checks of options that stores of several schemes have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sources.errors import SourceConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_DAY_SECONDS = 86_400


def check_known(uri: str, options: Mapping[str, object], known: Iterable[str]) -> None:
    """Refuse an option that is not known.

    Raises:
        SourceConfigError: Naming it, and those that are; never its value.
    """
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise SourceConfigError(f"{uri}: unknown option {unknown[0]!r}; known: {', '.join(known)}")


def timeout_of(uri: str, options: Mapping[str, object], default_seconds: float) -> float:
    """Return the option `timeout_seconds`.

    Raises:
        SourceConfigError: If it is no number of seconds up to a day.
    """
    try:
        seconds = float(str(options.get("timeout_seconds", default_seconds)))
    except ValueError:
        seconds = 0
    if not 0 < seconds < _DAY_SECONDS:
        raise SourceConfigError(f"{uri}: option timeout_seconds is a number of seconds between 0 and {_DAY_SECONDS}")
    return seconds
