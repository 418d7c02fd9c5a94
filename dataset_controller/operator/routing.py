"""What is to be looked at when an object changed; pure but for the mirror that it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dataset_controller.fields import API_VERSION
from dataset_controller.operations import OPERATIONS
from dataset_controller.operator.naming import DATASET, OWNER_UID
from dataset_controller.operator.planning.gates import is_gated
from dataset_controller.operator.queueing import Key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dataset_controller.operator.mirror import Document, Mirror

NAMESPACE = "Namespace"
POD = "Pod"
VOLUME = "PersistentVolume"
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
    if kind == POD:
        return {_key(after)} if after is not None and is_gated(after) else set()
    if changed["apiVersion"] != API_VERSION:
        return set(_of_owned(mirror, changed))
    keys = {Key(kind, metadata["namespace"], metadata["name"])} if after is not None else set()
    if kind == "Dataset":
        keys.update(_of_dataset(mirror, before, after))
    elif kind == "CacheRuntime":
        keys.update(_of_runtime(mirror, before, after))
    elif kind in OPERATIONS:
        keys.update(_of_operation(mirror, before, after))
        if kind == "DataMigrate" and (before is None) != (after is None):
            keys.add(Key(NAMESPACE, "", metadata["namespace"]))
    return keys


def _of_owned(mirror: Mirror, changed: Document) -> Iterator[Key]:
    metadata = changed["metadata"]
    labels = metadata.get("labels") or {}
    owner = mirror.of_uid(labels.get(OWNER_UID, ""))
    if owner is not None:
        yield Key(owner["kind"], owner["metadata"]["namespace"], owner["metadata"]["name"])
    elif labels.get("app.kubernetes.io/component") == AGENT_COMPONENT:
        yield Key(NAMESPACE, "", metadata["namespace"])
    elif changed["kind"] == VOLUME:
        yield Key(VOLUME, "", metadata["name"])


def _of_dataset(mirror: Mirror, before: Document | None, after: Document | None) -> Iterator[Key]:
    changed = after or before
    assert changed is not None
    namespace, name = changed["metadata"]["namespace"], changed["metadata"]["name"]
    is_declared_anew = _generation(before) != _generation(after)
    if is_declared_anew:
        yield Key(NAMESPACE, "", namespace)
    if after is None:  # in no namespace, they do not go with it
        owned = mirror.owned_by(changed["metadata"]["uid"])
        yield from (Key(VOLUME, "", ref.name) for ref in owned if ref.kind == VOLUME)
    if is_declared_anew or _status(before, "cachedPercent") != _status(after, "cachedPercent"):
        yield from _waiting(mirror, namespace, {name})
    if is_declared_anew or _status(before, "sizeBytes") != _status(after, "sizeBytes"):
        for document in (before, after):
            runtime = runtime_name(document)
            if runtime:
                yield Key("CacheRuntime", namespace, runtime)
    if is_declared_anew or _status(before, "revision") != _status(after, "revision"):
        yield from (_key(each) for each in _operations(mirror, namespace) if name in named_datasets(each))


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
        yield from _waiting(mirror, namespace, users)
    yield from (_key(each) for each in mirror.of_kind("DataLoad", namespace) if users & named_datasets(each))


def _of_operation(mirror: Mirror, before: Document | None, after: Document | None) -> Iterator[Key]:
    """Yield what runs after an operation; of one that is declared anew, also what it may have closed a circle with."""
    changed = after or before
    assert changed is not None
    own = f"{changed['kind']}/{changed['metadata']['name']}"
    is_other = _after(before) != _after(after)
    if not is_other and _phase(before) == _phase(after):
        return
    for each in _operations(mirror, changed["metadata"]["namespace"]):
        others = run_after(each)
        if own in others or (is_other and others):
            yield _key(each)


def _waiting(mirror: Mirror, namespace: str, datasets: set[str]) -> Iterator[Key]:
    """Yield the pods that wait for some datasets."""
    for pod in mirror.of_kind(POD, namespace):
        if is_gated(pod) and pod["metadata"]["labels"].get(DATASET) in datasets:
            yield _key(pod)


def _operations(mirror: Mirror, namespace: str) -> Iterator[Document]:
    for kind in OPERATIONS:
        yield from mirror.of_kind(kind, namespace)


def _key(document: Document) -> Key:
    return Key(document["kind"], document["metadata"]["namespace"], document["metadata"]["name"])


def named_datasets(operation: Document) -> set[str]:
    """Return the names of the datasets that an operation names; of one that is wrong, those that can be read."""
    spec = operation.get("spec") or {}
    places = [spec, spec.get("source"), spec.get("target")]
    found = [place.get("dataset") for place in places if isinstance(place, dict)]
    return {str(each.get("name")) for each in found if isinstance(each, dict)}


def run_after(operation: Document) -> list[str]:
    """Return what an operation runs after, each as "Kind/name"."""
    listed = (operation.get("spec") or {}).get("runAfter") or ()
    return [f"{each.get('kind')}/{each.get('name')}" for each in listed]


def _after(document: Document | None) -> list[str] | None:
    return None if document is None else run_after(document)


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
