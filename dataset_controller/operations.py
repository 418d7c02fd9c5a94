"""Work on datasets that is declared as objects of a cluster: loads, packs, processes and migrations."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from dataset_controller.fields import Bytes, DirectoryPath, Duration, Metadata, Model, Name, Reference, Uri

Revision = Annotated[str, Field(min_length=1)]
Pattern = Annotated[str, Field(min_length=1)]


class Schedule(Model):
    """When an operation runs again."""

    cron: Annotated[str, Field(min_length=9)]
    """Five fields, in UTC: `0 3 * * *`."""
    suspend: bool = False
    history: int = Field(default=3, ge=0, le=100)
    """How many ended jobs are kept."""


class Predecessor(Model):
    """An operation that must have succeeded."""

    kind: Literal["DataLoad", "DataPack", "DataProcess", "DataMigrate"]
    name: Name


class OperationSpec(Model):
    """What all operations have."""

    run_after: list[Predecessor] = Field(default_factory=list)
    """Begin when each of them has succeeded."""
    schedule: Schedule | None = None
    """Without it, it runs once, and again when its specification changes."""
    deadline: Duration | None = Field(default=None, gt=0)
    """Most time of one run."""
    retries: int = Field(default=3, ge=0)
    """How often a run that fails begins again; each goes on where the last one stopped."""
    suspend: bool = False
    """Begin nothing; what runs is stopped."""


class DataLoadSpec(OperationSpec):
    """What is to be in the cache."""

    dataset: Reference
    revision: Revision = "main"
    include: list[Pattern] = Field(default_factory=list)
    """Only files that fit one of these; all files if there are none."""
    exclude: list[Pattern] = Field(default_factory=list)
    replicas: int | None = Field(default=None, ge=1)
    """How many workers are to have each block; as the dataset says, if not set."""
    priority: int | None = Field(default=None, ge=-(1 << 31), lt=1 << 31)
    """Of what is loaded, until it is read with the dataset's own again; that of the dataset, if not set."""
    pin: bool = False
    """Keep it in the cache until the DataLoad is deleted."""


class DataPackSpec(OperationSpec):
    """Which revision becomes shards, and where."""

    dataset: Reference
    revision: Revision = "main"
    branch: Annotated[str, Field(min_length=1)]
    """Where the shards are committed: it becomes what the revision is, in another layout."""
    shard_size: Bytes = Field(default=256 << 20, ge=1 << 20)
    shuffle_seed: int | None = None
    """Puts the samples into a random order, the same for the same number."""


class DataProcessSpec(OperationSpec):
    """A program that reads a revision; what it wrote becomes a commit."""

    dataset: Reference
    revision: Revision = "main"
    branch: Annotated[str, Field(min_length=1)] = "main"
    """Where its output is committed."""
    output: Annotated[DirectoryPath, Field(min_length=1)]
    """Directory of the dataset that its output is committed to; what was there is replaced."""
    include: list[Pattern] = Field(default_factory=list)
    """Only files that fit one of these are brought to it; all files if there are none."""
    exclude: list[Pattern] = Field(default_factory=list)
    template: dict[str, Any]
    """A pod template. Its containers run one after the other, without the dataset's credentials: the files of the
    revision lie in the directory FOREBAY_INPUT, and what they leave in FOREBAY_OUTPUT is committed."""

    @model_validator(mode="after")
    def _has_a_container(self) -> DataProcessSpec:
        spec = self.template.get("spec")
        containers = spec.get("containers") if isinstance(spec, dict) else None
        if not isinstance(containers, list) or not containers:
            raise ValueError("template.spec.containers needs a container")
        if not all(isinstance(each, dict) for each in containers):
            raise ValueError("template.spec.containers: each is an object, as in a pod")
        return self


class Place(Model):
    """Where data comes from or goes to: a revision of a dataset, or a place in a store."""

    dataset: Reference | None = None
    revision: Revision | None = None
    """Of the dataset; where data goes to, its branch."""
    path: DirectoryPath = ""
    """Directory of the dataset."""
    uri: Uri | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    secret_ref: Reference | None = None

    @model_validator(mode="after")
    def _is_one_place(self) -> Place:
        if (self.dataset is None) == (self.uri is None):
            raise ValueError("name either a dataset or a uri")
        if self.uri is not None and (self.revision is not None or self.path):
            raise ValueError("revision and path belong to a dataset; a uri is complete")
        return self


class DataMigrateSpec(OperationSpec):
    """What is copied where."""

    source: Place
    target: Place
    """Nothing of it is deleted."""


class _Operation(Model):
    api_version: Literal["forebay.dev/v1alpha1"]
    metadata: Metadata


class DataLoad(_Operation):
    """Brings a revision into the cache."""

    kind: Literal["DataLoad"]
    spec: DataLoadSpec


class DataPack(_Operation):
    """Makes shards of a revision."""

    kind: Literal["DataPack"]
    spec: DataPackSpec


class DataProcess(_Operation):
    """Runs a program over a revision, and commits what it wrote."""

    kind: Literal["DataProcess"]
    spec: DataProcessSpec


class DataMigrate(_Operation):
    """Copies between datasets and stores."""

    kind: Literal["DataMigrate"]
    spec: DataMigrateSpec


Operation = DataLoad | DataPack | DataProcess | DataMigrate
OPERATIONS: dict[str, type[Operation]] = {
    "DataLoad": DataLoad,
    "DataPack": DataPack,
    "DataProcess": DataProcess,
    "DataMigrate": DataMigrate,
}


def dataset_names(operation: Operation) -> list[str]:
    """Return the names of the datasets that an operation is about: first the one that it reads."""
    if isinstance(operation, DataMigrate):
        places = (operation.spec.source, operation.spec.target)
        return list(dict.fromkeys(place.dataset.name for place in places if place.dataset is not None))
    return [operation.spec.dataset.name]


def place_secrets(operation: Operation) -> list[str]:
    """Return the names of the secrets that an operation names itself."""
    places = (operation.spec.source, operation.spec.target) if isinstance(operation, DataMigrate) else ()
    return sorted({place.secret_ref.name for place in places if place.secret_ref is not None})


def input_revision(operation: Operation) -> str | None:
    """Return the revision that an operation reads; None if it reads no dataset."""
    if isinstance(operation, DataMigrate):
        source = operation.spec.source
        return None if source.dataset is None else source.revision or "main"
    return operation.spec.revision
