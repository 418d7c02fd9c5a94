"""What a cluster tells of its objects: the `status` of each kind. Numbers are numbers; texts for people are columns."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dataset_controller.fields import Model

Phase = Literal["Pending", "Running", "Succeeded", "Failed", "Suspended"]


class Condition(Model):
    """One thing that is true of an object or not, as Kubernetes writes conditions."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    """One word in camel case."""
    message: str = ""
    """For people: what it is, and what to do."""
    last_transition_time: str
    observed_generation: int | None = None


class Status(Model):
    """What every kind tells."""

    observed_generation: int | None = None
    """The generation of the specification that the rest is about."""
    conditions: list[Condition] = Field(default_factory=list)


class NodeBytes(Model):
    """How much of a dataset one node has."""

    node: str
    bytes: int
    """About, of the dataset's `sizeBytes`: from a sample of up to 512 pieces, each node asked for all of them."""


class DatasetStatus(Status):
    """How a dataset is."""

    revision: str | None = None
    """Commit at the head of the branch that is synced, or of `main`."""
    files: int | None = None
    size_bytes: int | None = None
    cached_bytes: int | None = None
    """How many of them some worker has."""
    cached_percent: int | None = None
    cached_on: list[NodeBytes] = Field(default_factory=list)
    """The nodes whose workers have most, at most 10; what several have counts on each."""
    hit_percent: int | None = None
    """Of the reads of the last minutes, how many needed no source."""
    last_sync_time: str | None = None
    """When the sources were last looked at with success."""
    last_commit_time: str | None = None


class WorkerStatus(Model):
    """How one worker is."""

    name: str
    node: str = ""
    ready: bool
    used_bytes: int | None = None
    capacity_bytes: int | None = None


class CacheRuntimeStatus(Status):
    """How a cache is."""

    replicas: int = 0
    """Pods of workers there are; of the scale subresource."""
    ready_replicas: int = 0
    selector: str = ""
    """Labels of the pods; of the scale subresource."""
    capacity_bytes: int | None = None
    used_bytes: int | None = None
    hit_percent: int | None = None
    workers: list[WorkerStatus] = Field(default_factory=list)


class OperationStatus(Status):
    """How an operation is."""

    phase: Phase = "Pending"
    revision: str | None = None
    """The commit it works on, or last worked on."""
    run: int = 0
    """Which run this is, from 1."""
    spec_digest: str | None = None
    """Of the specification that this run was made for."""
    start_time: str | None = None
    completion_time: str | None = None
    next_time: str | None = None
    """When a scheduled one runs again."""
    bytes_total: int | None = None
    bytes_done: int | None = None
    percent: int | None = None
    bytes_per_second: int | None = None
    eta_seconds: int | None = None


class DataLoadStatus(OperationStatus):
    """How a load is."""

    files_total: int | None = None
    files_failed: int | None = None
    failures: list[str] = Field(default_factory=list)
    """Some of the files that failed, with the reason."""


class DataPackStatus(OperationStatus):
    """How a pack is."""

    commit: str | None = None
    shards_done: int | None = None
    shards_total: int | None = None


class DataProcessStatus(OperationStatus):
    """How a process is."""

    commit: str | None = None


class DataMigrateStatus(OperationStatus):
    """How a migration is."""

    commit: str | None = None
    """Of a target that is a dataset."""
    files_done: int | None = None
    files_total: int | None = None
