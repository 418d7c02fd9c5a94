"""What is to be looked at when an object changed; pure but for the mirror that it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dataset_controller.fields import API_VERSION
from dataset_controller.operations import OPERATIONS
from dataset_controller.operator.naming import OWNER_UID
from dataset_controller.operator.queueing import Key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dataset_controller.operator.mirror import Document, Mirror

NAMESPACE = "Namespace"
AGENT_COMPONENT = "agent"


def keys_of(mirror: Mirror, before: Document | None, after: Document | None) -> set[Key]:
    """Return what a change concerns.

    Args:
        mirror: As it is after the change.
        before: The object before; None if it was not there.
        after: The object now; None if it is gone.
    """
    changed = after if after is not None else before
    if changed is None:
        return set()
    metadata, kind = changed["metadata"], changed["kind"]
    if changed["apiVersion"] != API_VERSION:
        return set(_of_owned(mirror, metadata))
    keys = {Key(kind, metadata["namespace"], metadata["name"])} if after is not None else set()
    if kind == "Dataset":
        keys.update(_of_dataset(mirror, before, after))
    elif kind == "CacheRuntime":
        keys.update(_of_runtime(mirror, before, after))
    elif kind in OPERATIONS and _phase(before) != _phase(after):
        keys.update(_of_operation(mirror, changed))
    return keys


def _of_owned(mirror: Mirror, metadata: dict[str, Any]) -> Iterator[Key]:
    labels = metadata.get("labels") or {}
    owner = mirror.of_uid(labels.get(OWNER_UID, ""))
    if owner is not None:
        yield Key(owner["kind"], owner["metadata"]["namespace"], owner["metadata"]["name"])
    elif labels.get("app.kubernetes.io/component") == AGENT_COMPONENT:
        yield Key(NAMESPACE, "", metadata["namespace"])


def _of_dataset(mirror: Mirror, before: Document | None, after: Document | None) -> Iterator[Key]:
    changed = after or before
    assert changed is not None
    namespace, name = changed["metadata"]["namespace"], changed["metadata"]["name"]
    is_declared_anew = _generation(before) != _generation(after)
    if is_declared_anew:
        yield Key(NAMESPACE, "", namespace)
    if is_declared_anew or _status(before, "sizeBytes") != _status(after, "sizeBytes"):
        for document in (before, after):
            runtime = runtime_name(document)
            if runtime:
                yield Key("CacheRuntime", namespace, runtime)
    if is_declared_anew or _status(before, "revision") != _status(after, "revision"):
        for load in mirror.of_kind("DataLoad", namespace):
            if load["spec"].get("dataset", {}).get("name") == name:
                yield Key("DataLoad", namespace, load["metadata"]["name"])


def _of_runtime(mirror: Mirror, before: Document | None, after: Document | None) -> Iterator[Key]:
    changed = after or before
    assert changed is not None
    namespace, name = changed["metadata"]["namespace"], changed["metadata"]["name"]
    is_there_anew = (before is None) != (after is None)
    if is_there_anew:
        yield Key(NAMESPACE, "", namespace)
    has_begun = bool(_status(before, "readyReplicas")) != bool(_status(after, "readyReplicas"))
    if not is_there_anew and not has_begun:
        return
    users = {each["metadata"]["name"] for each in mirror.of_kind("Dataset", namespace) if runtime_name(each) == name}
    if is_there_anew:
        yield from (Key("Dataset", namespace, user) for user in users)
    for load in mirror.of_kind("DataLoad", namespace):
        if load["spec"].get("dataset", {}).get("name") in users:
            yield Key("DataLoad", namespace, load["metadata"]["name"])


def _of_operation(mirror: Mirror, changed: Document) -> Iterator[Key]:
    """Yield what runs after an operation."""
    namespace, kind, name = changed["metadata"]["namespace"], changed["kind"], changed["metadata"]["name"]
    for load in mirror.of_kind("DataLoad", namespace):
        for predecessor in load["spec"].get("runAfter") or ():
            if (predecessor.get("kind"), predecessor.get("name")) == (kind, name):
                yield Key("DataLoad", namespace, load["metadata"]["name"])


def runtime_name(dataset: Document | None) -> str:
    """Return the name of the runtime that a dataset uses, "" if it uses none."""
    cache = (dataset or {}).get("spec", {}).get("cache") or {}
    return str((cache.get("runtimeRef") or {}).get("name") or "")


def _generation(document: Document | None) -> Any:
    return None if document is None else (document["metadata"]["uid"], document["metadata"].get("generation"))


def _status(document: Document | None, name: str) -> Any:
    return None if document is None else (document.get("status") or {}).get(name)


def _phase(document: Document | None) -> Any:
    return _status(document, "phase")
