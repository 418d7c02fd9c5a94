"""What is made for an owner: which of it is missing or other than it should be, and which is not wanted any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dataset_controller.operator.naming import OWNER_UID, owner_reference
from dataset_controller.operator.planning.actions import Apply, Delete, Ref
from dataset_controller.operator.planning.comparing import covers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def owned(owner: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """Return a document that goes with its owner, and is found by its owner's id."""
    metadata = document["metadata"]
    labels = {**metadata["labels"], OWNER_UID: owner["metadata"]["uid"]}
    return {**document, "metadata": {**metadata, "labels": labels, "ownerReferences": [owner_reference(owner)]}}


def applied(documents: Iterable[dict[str, Any]], objects: Mapping[Ref, dict[str, Any]]) -> list[Apply]:
    """Return what makes objects be as the documents say."""
    return [Apply(document) for document in documents if not covers(objects.get(Ref.of(document)), document)]


def surplus(documents: Sequence[dict[str, Any]], objects: Mapping[Ref, dict[str, Any]]) -> list[Delete]:
    """Return what deletes the objects that no document is about; those that are being deleted already are left."""
    wanted = {Ref.of(document) for document in documents}
    return [deleted(ref, found) for ref, found in objects.items() if ref not in wanted and not is_leaving(found)]


def deleted(ref: Ref, found: dict[str, Any]) -> Delete:
    """Return what deletes an object, and none that comes after it under its name."""
    return Delete(ref, found["metadata"].get("uid", ""))


def is_leaving(found: Mapping[str, Any]) -> bool:
    """Say whether an object is being deleted."""
    return bool(found["metadata"].get("deletionTimestamp"))
