"""What is in the cluster, as far as the operator is concerned with it: kept in memory by watches."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, TypeVar

from dataset_controller.operator.naming import DATASET, MANAGER, OWNER_UID
from dataset_controller.operator.planning.actions import Ref

if TYPE_CHECKING:
    from collections.abc import Iterable

Document = dict[str, Any]
_K = TypeVar("_K")
_DROPPED = ("managedFields", "selfLink", "creationTimestamp")
_KEPT_ANNOTATIONS = "forebay.dev/"
_MOST_GONE = 4096
_OF_POD = ("schedulingGates",)
"""What is kept of the specification of people's pods, of which there may be thousands."""


def trimmed(document: Document) -> Document:
    """Return an object without what nothing here looks at."""
    metadata = {key: value for key, value in document["metadata"].items() if key not in _DROPPED}
    annotations = metadata.pop("annotations", None) or {}
    kept = {key: value for key, value in annotations.items() if key.startswith(_KEPT_ANNOTATIONS)}
    if kept:
        metadata["annotations"] = kept
    labels = metadata.get("labels") or {}
    if document["kind"] == "Pod" and DATASET in labels and labels.get("app.kubernetes.io/managed-by") != MANAGER:
        metadata["creationTimestamp"] = document["metadata"].get("creationTimestamp")
        spec = {key: value for key, value in document["spec"].items() if key in _OF_POD}
        return {**{key: document[key] for key in ("apiVersion", "kind")}, "metadata": metadata, "spec": spec}
    return {**document, "metadata": metadata}


class Mirror:
    """Objects by what they are; any number of threads. What it returns is not to be changed."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._objects: dict[Ref, Document] = {}
        self._named: dict[tuple[str, str], set[Ref]] = {}
        self._owned: dict[str, set[Ref]] = {}
        self._by_uid: dict[str, Ref] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        """Return how many objects there are."""
        return len(self._objects)

    def get(self, ref: Ref) -> Document | None:
        """Return an object."""
        return self._objects.get(ref)

    def of_uid(self, uid: str) -> Document | None:
        """Return the object with this id."""
        with self._lock:
            ref = self._by_uid.get(uid)
            return None if ref is None else self._objects.get(ref)

    def of_kind(self, kind: str, namespace: str) -> list[Document]:
        """Return the objects of a kind in a namespace, by name."""
        with self._lock:
            return [self._objects[ref] for ref in sorted(self._named.get((kind, namespace), ()))]

    def all_of(self, kind: str) -> list[Ref]:
        """Return which objects of a kind there are."""
        with self._lock:
            return [ref for (found, _), refs in self._named.items() if found == kind for ref in refs]

    def owned_by(self, uid: str) -> dict[Ref, Document]:
        """Return what was made for the owner with this id."""
        with self._lock:
            return {ref: self._objects[ref] for ref in self._owned.get(uid, ())}

    def put(self, document: Document) -> Document | None:
        """Note an object, unless a later state of it is known, or its end. Returns what was known of it."""
        ref, document = Ref.of(document), trimmed(document)
        with self._lock:
            before = self._objects.get(ref)
            if document["metadata"]["uid"] in self._gone:  # the answer to a call came after the watch said it is gone
                return before
            if before is not None and _version(before) >= _version(document):
                return before
            if before is not None:
                self._forget(ref, before)
            self._objects[ref] = document
            self._named.setdefault((ref.kind, ref.namespace), set()).add(ref)
            self._by_uid[document["metadata"]["uid"]] = ref
            owner = _owner(document)
            if owner:
                self._owned.setdefault(owner, set()).add(ref)
            return before

    def drop(self, ref: Ref, uid: str, *, for_good: bool = True) -> Document | None:
        """Forget an object, unless it is another one by now. Returns what was known of it.

        Args:
            ref: Which one.
            uid: Its id.
            for_good: Whether it was deleted; else a list lacks it, which may be older than it.
        """
        with self._lock:
            if for_good:
                self._gone[uid] = None
                if len(self._gone) > _MOST_GONE:
                    self._gone.popitem(last=False)
            before = self._objects.get(ref)
            if before is None or before["metadata"]["uid"] != uid:
                return None
            self._forget(ref, before)
            return before

    def missing_from(self, kind: str, namespaces: set[str] | None, listed: Iterable[Ref]) -> list[Document]:
        """Return the objects of a kind that a list of it lacks.

        Args:
            kind: Which one.
            namespaces: Those that the list is of; None for all.
            listed: What the list has.
        """
        there = set(listed)
        with self._lock:
            return [
                self._objects[ref]
                for ref in self.all_of(kind)
                if ref not in there and (namespaces is None or ref.namespace in namespaces)
            ]

    def _forget(self, ref: Ref, document: Document) -> None:
        del self._objects[ref]
        _discard(self._named, (ref.kind, ref.namespace), ref)
        _discard(self._owned, _owner(document), ref)
        uid = document["metadata"]["uid"]
        if self._by_uid.get(uid) == ref:
            del self._by_uid[uid]


def _discard(index: dict[_K, set[Ref]], key: _K, ref: Ref) -> None:
    refs = index.get(key, set())
    refs.discard(ref)
    if not refs:
        index.pop(key, None)


def _owner(document: Document) -> str:
    return str((document["metadata"].get("labels") or {}).get(OWNER_UID, ""))


def _version(document: Document) -> int:
    """Return the order of an object's states: the versions of etcd are numbers that grow."""
    return int(document["metadata"].get("resourceVersion") or 0)
