"""Whether an object of the cluster is already as it should be."""

from __future__ import annotations

from typing import Any


def covers(observed: Any, desired: Any) -> bool:
    """Say whether all that is desired is observed; the server adds defaults and what others set.

    Lists must agree item by item: none of ours is one that somebody else adds to.
    """
    if isinstance(desired, dict):
        return isinstance(observed, dict) and all(
            covers(observed[key], value) if key in observed else value in ({}, [], None)
            for key, value in desired.items()
        )
    if isinstance(desired, list):
        return (
            isinstance(observed, list)
            and len(observed) == len(desired)
            and all(covers(each, wanted) for each, wanted in zip(observed, desired, strict=True))
        )
    return bool(observed == desired)


def tells(observed: dict[str, Any], status: dict[str, Any]) -> bool:
    """Say whether a status tells all of another one, beside the conditions that others tell."""
    types = {condition["type"] for condition in status.get("conditions", ())}
    told = [condition for condition in observed.get("conditions", ()) if condition["type"] in types]
    order = sorted(told, key=lambda condition: str(condition["type"]))
    wanted = sorted(status.get("conditions", ()), key=lambda condition: str(condition["type"]))
    return covers({**observed, "conditions": order}, {**status, "conditions": wanted})
