"""Custom resource definitions, out of the models: what a cluster accepts is what `ds apply` accepts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from dataset_controller.fields import API_VERSION
from dataset_controller.model import Dataset
from dataset_controller.operations import DataLoad, DataMigrate, DataPack, DataProcess
from dataset_controller.runtime_model import CacheRuntime
from dataset_controller.schema import structural_schema
from dataset_controller.status_model import (
    CacheRuntimeStatus,
    DataLoadStatus,
    DataMigrateStatus,
    DataPackStatus,
    DataProcessStatus,
    DatasetStatus,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

GROUP, VERSION = API_VERSION.split("/")


@dataclass(frozen=True)
class Column:
    """One column of `kubectl get`.

    Attributes:
        name: In its head.
        path: Where the value is, from the object on.
        kind: As the definition names it.
        priority: 1 for what only `-o wide` shows.
    """

    name: str
    path: str
    kind: Literal["string", "integer", "date", "boolean", "number"] = "string"
    priority: int = 0


@dataclass(frozen=True)
class Rule:
    """What one field may not say beside another, in CEL; servers without it leave it to the webhook.

    Attributes:
        rule: It must be true of `self`.
        message: What to do, for people.
        path: Field of the specification that it is about, with dots; "" for all of it.
    """

    rule: str
    message: str
    path: str = ""


@dataclass(frozen=True)
class Kind:
    """One kind of object.

    Attributes:
        model: As declared.
        status: As told.
        plural: Name of its collection.
        short_names: For kubectl.
        columns: Of `kubectl get`.
        rules: See `Rule`.
        scales: Whether `kubectl scale` sets its replicas.
    """

    model: type[BaseModel]
    status: type[BaseModel]
    plural: str
    short_names: tuple[str, ...]
    columns: tuple[Column, ...]
    rules: tuple[Rule, ...] = field(default=())
    scales: bool = False

    @property
    def name(self) -> str:
        """Its name: "Dataset"."""
        return self.model.__name__


_READY = Column("Ready", '.status.conditions[?(@.type=="Ready")].status')
_AGE = Column("Age", ".metadata.creationTimestamp", "date")
_PHASE = Column("Phase", ".status.phase")
_OPERATION_DATASET = Column("Dataset", ".spec.dataset.name")
_REVISION = Column("Revision", ".spec.revision")
_PERCENT = Column("Progress", ".status.percent", "integer")

KINDS = (
    Kind(
        Dataset,
        DatasetStatus,
        "datasets",
        ("dset",),  # `ds` is the DaemonSets'
        (
            Column("Revision", ".status.revision"),
            Column("Files", ".status.files", "integer"),
            Column("Size", ".status.sizeBytes", "integer"),
            Column("Cached", ".status.cachedBytes", "integer"),
            Column("%", ".status.cachedPercent", "integer"),
            Column("Hit", ".status.hitPercent", "integer"),
            _READY,
            Column("Synced", ".status.lastSyncTime", "date", priority=1),
            _AGE,
        ),
        (
            Rule(
                "self.repo.uri == oldSelf.repo.uri",
                "a dataset keeps its repository; delete the dataset and declare it anew to move it",
            ),
            Rule(
                "!has(self.mounts) || self.mounts.all(a, self.mounts.exists_one(b, a.name == b.name))",
                "two mounts have one name; rename one of them",
            ),
        ),
    ),
    Kind(
        CacheRuntime,
        CacheRuntimeStatus,
        "cacheruntimes",
        ("cache",),
        (
            Column("Workers", ".status.readyReplicas", "integer"),
            Column("Wanted", ".spec.replicas", "integer"),
            Column("Capacity", ".status.capacityBytes", "integer"),
            Column("Used", ".status.usedBytes", "integer"),
            Column("Hit", ".status.hitPercent", "integer"),
            _READY,
            _AGE,
        ),
        (
            Rule(
                "!has(self.autoscale) || self.autoscale.minReplicas <= self.autoscale.maxReplicas",
                "minReplicas is more than maxReplicas",
            ),
        ),
        scales=True,
    ),
    Kind(
        DataLoad,
        DataLoadStatus,
        "dataloads",
        ("load",),
        (
            _OPERATION_DATASET,
            _REVISION,
            _PERCENT,
            Column("Rate", ".status.bytesPerSecond", "integer"),
            Column("Eta", ".status.etaSeconds", "integer"),
            Column("Failed", ".status.filesFailed", "integer"),
            _PHASE,
            _AGE,
        ),
    ),
    Kind(
        DataPack,
        DataPackStatus,
        "datapacks",
        ("pack",),
        (
            _OPERATION_DATASET,
            _REVISION,
            _PERCENT,
            Column("Shards", ".status.shardsDone", "integer"),
            _PHASE,
            _AGE,
        ),
    ),
    Kind(
        DataProcess,
        DataProcessStatus,
        "dataprocesses",
        ("process",),
        (_OPERATION_DATASET, Column("Commit", ".status.commit"), _PHASE, _AGE),
    ),
    Kind(
        DataMigrate,
        DataMigrateStatus,
        "datamigrates",
        ("migrate",),
        (
            Column("From", ".spec.source.dataset.name"),
            Column("To", ".spec.target.dataset.name"),
            _PERCENT,
            _PHASE,
            _AGE,
        ),
        tuple(
            Rule("has(self.dataset) != has(self.uri)", "name either a dataset or a uri", path)
            for path in ("source", "target")
        ),
    ),
)


def definitions(*, with_rules: bool = True) -> list[dict[str, Any]]:
    """Return the definitions of all kinds.

    Args:
        with_rules: False for servers before 1.25, whose clients may refuse fields that they do not know. They cannot do
            server-side apply on kinds with quantities ("has invalid property: anyOf" in their log), and take every list
            as a whole: a quantity may be anything there, and the operator says what it may not be.
    """
    return [_definition(kind, with_rules=with_rules) for kind in KINDS]


def _definition(kind: Kind, *, with_rules: bool) -> dict[str, Any]:
    names = {
        "kind": kind.name,
        "listKind": f"{kind.name}List",
        "plural": kind.plural,
        "singular": kind.name.lower(),
        "shortNames": list(kind.short_names),
        "categories": ["forebay"],
    }
    subresources: dict[str, Any] = {"status": {}}
    if kind.scales:
        subresources["scale"] = {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        }
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _schema(kind, with_rules=with_rules)},
        "subresources": subresources,
        "additionalPrinterColumns": [_column(column) for column in kind.columns],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def _schema(kind: Kind, *, with_rules: bool) -> dict[str, Any]:
    spec = structural_schema(kind.model)["properties"]["spec"]
    status = structural_schema(kind.status)
    conditions = status["properties"]["conditions"]
    conditions.update({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]})
    if with_rules:
        for rule in kind.rules:
            _add_rule(spec, rule)
    else:
        _loosen(spec)
    return {
        "type": "object",
        "description": (kind.model.__doc__ or "").strip(),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
    }


def _loosen(schema: dict[str, Any]) -> None:
    """Let what is a number or a text be anything."""
    if schema.pop("x-kubernetes-int-or-string", False):
        schema["x-kubernetes-preserve-unknown-fields"] = True
    for child in (*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")):
        if isinstance(child, dict):
            _loosen(child)


def _add_rule(spec: dict[str, Any], rule: Rule) -> None:
    node = spec
    for step in rule.path.split(".") if rule.path else ():
        node = node["properties"][step]
    node.setdefault("x-kubernetes-validations", []).append({"rule": rule.rule, "message": rule.message})


def _column(column: Column) -> dict[str, Any]:
    found: dict[str, Any] = {"name": column.name, "type": column.kind, "jsonPath": column.path}
    if column.kind == "integer":
        found["format"] = "int64"
    return {**found, "priority": column.priority} if column.priority else found


def plural_of(kind: str) -> str:
    """Return the name of a kind's collection.

    Raises:
        KeyError: If there is no such kind.
    """
    return _BY_NAME[kind].plural


_BY_NAME: Mapping[str, Kind] = {kind.name: kind for kind in KINDS}
