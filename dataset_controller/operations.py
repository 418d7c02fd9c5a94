"""Work on datasets that is declared as objects of a cluster: loads, packs, processes and migrations."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from dataset_controller.fields import Duration, Metadata, Model, Name, Reference, Uri

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
    pin: bool = False
    """Keep it in the cache until the DataLoad is deleted."""


class DataPackSpec(OperationSpec):
    """Which revision becomes shards, and where."""

    dataset: Reference
    revision: Revision = "main"
    branch: Annotated[str, Field(min_length=1)]
    """Where the shards are committed."""
    shard_size: Annotated[str, Field(min_length=1)] = "256Mi"
    shuffle_seed: int | None = None
    """Puts the samples into a random order, the same for the same number."""


class DataProcessSpec(OperationSpec):
    """A program that reads a revision; what it wrote becomes a commit."""

    dataset: Reference
    revision: Revision = "main"
    branch: Annotated[str, Field(min_length=1)] = "main"
    """Where its output is committed."""
    output: Annotated[str, Field(min_length=1)]
    """Directory of the dataset that its output is committed to; what was there is replaced."""
    template: dict[str, Any]
    """A pod template; its first container finds the environment variables of `ds`, and writes to FOREBAY_OUTPUT."""

    @model_validator(mode="after")
    def _has_a_container(self) -> DataProcessSpec:
        spec = self.template.get("spec")
        if not isinstance(spec, dict) or not spec.get("containers"):
            raise ValueError("template.spec.containers needs a container")
        return self


class Place(Model):
    """Where data comes from or goes to: a revision of a dataset, or a place in a store."""

    dataset: Reference | None = None
    revision: Revision | None = None
    """Of the dataset; where data goes to, its branch."""
    path: str = ""
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
