"""Quantities as Kubernetes writes them: `512Mi`, `1.5Gi`, `2T`, `1048576`."""

from __future__ import annotations

import re
from decimal import Decimal

_QUANTITY = re.compile(r"^(?P<number>\d+(?:\.\d+)?)(?P<suffix>Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E)?$")
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
