"""Quantities as Kubernetes writes them, `512Mi`, `1.5Gi`, `2T`, `1048576`, and durations: `90s`, `1h30m`."""

from __future__ import annotations

import re
from decimal import Decimal

QUANTITY_PATTERN = r"^\d+(\.\d+)?(Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E)?$"
DURATION_PATTERN = r"^([0-9]{1,12}(\.[0-9]{1,9})?(ms|s|m|h|d))+$"
_QUANTITY = re.compile(r"^(?P<number>\d+(?:\.\d+)?)(?P<suffix>Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E)?$")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BINARY = {suffix: 1024 ** (power + 1) for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))}
_DECIMAL = {suffix: 1000 ** (power + 1) for power, suffix in enumerate(("k", "M", "G", "T", "P", "E"))}
_FACTORS = {**_BINARY, **_DECIMAL}


def parse_quantity(text: str | int) -> int:
    """Return a quantity as bytes, rounded up as Kubernetes does.

    Raises:
        ValueError: If it is not a non-negative quantity.
    """
    if isinstance(text, bool) or (isinstance(text, int) and text < 0):
        raise ValueError(f"expected a quantity such as 512Mi or 2Ti, found {text!r}")
    if isinstance(text, int):
        return text
    match = _QUANTITY.match(text.strip())
    if match is None:
        raise ValueError(f"expected a quantity such as 512Mi or 2Ti, found {text!r}")
    exact = Decimal(match["number"]) * _FACTORS.get(match["suffix"], 1)
    return int(exact.to_integral_value(rounding="ROUND_CEILING"))


def parse_duration(text: str | float) -> float:
    """Return a duration as seconds; a number is seconds already.

    Raises:
        ValueError: If it is no duration, or negative.
    """
    if isinstance(text, (int, float)) and not isinstance(text, bool) and 0 <= text < float("inf"):
        return float(text)
    if not isinstance(text, str) or not re.match(DURATION_PATTERN, text.strip()):
        raise ValueError(f"expected a duration such as 90s, 10m or 1h30m, found {text!r}")
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
