"""Functions that packs of the tests send samples through, in whatever process."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any


def upper(sample: dict[str, Any]) -> dict[str, Any] | None:
    """Change one field, add one, take one away, and drop every fifth sample."""
    if "png" not in sample or int(sample["__key__"].rpartition("/")[2]) % 5 == 0:
        return None
    return {"__key__": sample["__key__"], "png": sample["png"] * 2, "len": str(len(sample["png"])).encode()}


def fail_with_seven(sample: dict[str, Any]) -> dict[str, Any]:
    if sample["__key__"].endswith("7"):
        raise ValueError("seven is no number for me")
    return sample


def returns_text(sample: dict[str, Any]) -> dict[str, Any]:
    return {"txt": "no bytes"}


def die_once(sample: dict[str, Any]) -> dict[str, Any]:
    """Kill the worker the first time that a sample is seen."""
    if sample["__key__"].endswith("13"):
        mark = Path(os.environ["FOREBAY_TEST_MARK"])
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return sample


def die_always(sample: dict[str, Any]) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return sample


def hundreds(path: str) -> tuple[str, str] | None:
    """Key rule: the number's hundreds are the sample, the rest is the field."""
    name = path.rpartition("/")[2].partition(".")[0]
    return (name[:2], name[2:]) if name.isdigit() else None
