"""The objects that people declare: one schema for YAML files, Python and, later, CRDs.

Every field takes effect; a field that this version does not know is an error, never ignored.
"""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from dataset_controller.fields import (
    API_VERSION,
    Bytes,
    DirectoryPath,
    Duration,
    Metadata,
    Model,
    Name,
    Reference,
    Uri,
)
from dataset_controller.runtime_model import CacheRuntime
from sources import Limits, StoreId, split_uri

__all__ = [
    "API_VERSION",
    "KINDS",
    "CacheRuntime",
    "CacheUse",
    "Dataset",
    "DatasetSpec",
    "Inventory",
    "Mount",
    "OriginLimits",
    "Repo",
    "Resource",
    "Samples",
    "Sync",
]


class OriginLimits(Model):
    """What one process may ask of a store; of several mounts of one store the tightest count."""

    requests_per_second: float | None = Field(default=None, gt=0)
    bytes_per_second: Bytes | None = Field(default=None, gt=0)
    concurrency: int = Field(default=Limits().concurrency, gt=0)
    """Requests at a time."""


class _Place(Model):
    uri: Uri
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the store, in the vocabulary of the scheme's fsspec implementation."""
    secret_ref: Reference | None = None
    """A secret whose keys are further options."""
    limits: OriginLimits | None = None

    @property
    def store_limits(self) -> Limits | None:
        """The limits as the store takes them."""
        return Limits(**self.limits.model_dump()) if self.limits else None

    @property
    def store(self) -> StoreId:
        """Id of the store that it lies in."""
        return split_uri(self.uri).store

    @property
    def prefix(self) -> str:
        """Key prefix of the place in its store: "" or ending in "/"."""
        key = split_uri(self.uri).key.rstrip("/")
        return f"{key}/" if key else ""


class Inventory(Model):
    """A list of a bucket's objects that the store itself writes, to be read instead of listing the bucket."""

    uri: Uri
    """`s3://` URI of a `manifest.json`, or of the directory that the inventory's reports are written to."""
    options: dict[str, Any] | None = None
    """Options of its store; those of the mount, if there are none."""


class Mount(_Place):
    """A source placed at a path of the dataset: what is below its URI appears below the path."""

    name: Name
    path: DirectoryPath
    """Directory of the dataset, "" for its root."""
    inventory: Inventory | None = None
    exclude: list[str] = Field(default=[])
    """Patterns as in `.gitignore`, relative to what the mount places: objects that imports leave out."""

    @field_validator("exclude")
    @classmethod
    def _patterns_can_be(cls, patterns: list[str]) -> list[str]:
        if patterns:
            from dataset_controller.excluding import Exclusion  # most datasets have none

            Exclusion(patterns)
        return patterns

    @model_validator(mode="after")
    def _excludes_what_is_listed(self) -> Mount:
        if self.exclude:
            from sources.dvc.objects import DVC_OBJECTS

            if self.store == DVC_OBJECTS:
                raise ValueError(f"exclude has no effect on {DVC_OBJECTS}, which is not listed; remove it")
        return self


class Repo(_Place):
    """Where the versions are kept."""


class CacheUse(Model):
    """How a dataset is cached."""

    runtime_ref: Reference
    """The CacheRuntime that holds its blocks."""
    priority: int = Field(default=0, ge=-(1 << 31), lt=1 << 31)
    """What is cached for it is never evicted for a dataset with a lower one."""
    quota: Bytes | None = Field(default=None, gt=0)
    """Most bytes on each node; without one only the capacity counts."""
    admission: Literal["auto", "sieve", "keep"] = "auto"
    """What a full cache does with more: `sieve` evicts what was not read lately; `keep` leaves what is there in place,
    so that a dataset that is read in rounds and is larger than the cache does not evict itself; `auto` is `keep` for a
    version that is larger than its room, else `sieve`."""
    replicas: int = Field(default=1, ge=1)
    """How many workers keep each block."""


class Samples(Model):
    """How files are grouped into samples."""

    key: Literal["path", "stem"] = "path"
    """`path`: files of one directory that share their name up to the first dot; `stem`: also across directories."""


class Sync(Model):
    """How changes of the sources become versions by themselves; in a cluster."""

    interval: Duration = Field(gt=0)
    """Time from one look at the sources to the next."""
    branch: Annotated[str, Field(min_length=1)] = "main"
    """Where what changed is committed."""


class DatasetSpec(Model):
    """What a dataset is made of."""

    mounts: list[Mount] = Field(default=[])
    """The sources; none for a dataset that is only written."""
    repo: Repo
    sync: Sync | None = None
    """Without it only `ds commit` makes versions."""
    cache: CacheUse | None = None
    samples: Samples = Samples()

    @model_validator(mode="after")
    def _mounts_are_disjoint(self) -> DatasetSpec:
        names = [mount.name for mount in self.mounts]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two mounts are named {name!r}")
        ordered = sorted(self.mounts, key=lambda mount: mount.path)
        for before, after in itertools.pairwise(ordered):
            if after.path.startswith(before.path):
                raise ValueError(
                    f"mounts {before.name!r} and {after.name!r} overlap: /{after.path} lies in /{before.path}; "
                    "give each its own directory"
                )
        return self

    @model_validator(mode="after")
    def _no_mount_is_the_repository(self) -> DatasetSpec:
        for mount in self.mounts:
            if (mount.store, mount.prefix) == (self.repo.store, self.repo.prefix):
                raise ValueError(
                    f"mount {mount.name!r} and the repository are one place, {mount.uri}; "
                    "give the repository a directory of its own"
                )
        return self


class Dataset(Model):
    """One namespace over sources, with versions and a cache."""

    api_version: Literal["forebay.dev/v1alpha1"]
    kind: Literal["Dataset"]
    metadata: Metadata
    spec: DatasetSpec


Resource = Dataset | CacheRuntime
KINDS: dict[str, type[Dataset | CacheRuntime]] = {"Dataset": Dataset, "CacheRuntime": CacheRuntime}
