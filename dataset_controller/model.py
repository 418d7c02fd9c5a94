"""The objects that people declare: one schema for YAML files, Python and, later, CRDs.

Every field takes effect; a field that this version does not know is an error, never ignored.
"""

from __future__ import annotations

import itertools
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from dataset_controller.quantities import parse_quantity
from sources import Limits, StoreId, split_uri

API_VERSION = "forebay.dev/v1alpha1"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def _checked_name(name: Any) -> Any:
    if isinstance(name, str) and not _NAME.fullmatch(name):
        raise ValueError(f"expected up to 63 lower-case letters, digits and '-', as in DNS, found {name!r}")
    return name


def _checked_uri(uri: Any) -> Any:
    if isinstance(uri, str):
        split_uri(uri)
    return uri


def _directory(path: Any) -> Any:
    """Normalise a dataset path: no slash in front, one at the end; "" is the root."""
    if not isinstance(path, str):
        return path
    parts = [part for part in path.split("/") if part]
    if any(part in (".", "..") for part in parts):
        raise ValueError(f"'.' and '..' are not allowed in a dataset path, found {path!r}")
    return "/".join(parts) + "/" if parts else ""


Name = Annotated[str, BeforeValidator(_checked_name)]
Uri = Annotated[str, BeforeValidator(_checked_uri)]
DirectoryPath = Annotated[str, BeforeValidator(_directory)]
Bytes = Annotated[int, BeforeValidator(parse_quantity)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class Metadata(_Model):
    """The object's name; unique per kind."""

    name: Name


class OriginLimits(_Model):
    """What one process may ask of a store; of several mounts of one store the tightest count."""

    requests_per_second: float | None = Field(default=None, gt=0)
    bytes_per_second: Bytes | None = Field(default=None, gt=0)
    concurrency: int = Field(default=Limits().concurrency, gt=0)
    """Requests at a time."""


class _Place(_Model):
    uri: Uri
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the store, in the vocabulary of the scheme's fsspec implementation."""
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


class Inventory(_Model):
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


class Repo(_Place):
    """Where the versions are kept."""


class Reference(_Model):
    """The name of another object."""

    name: Name


class CacheUse(_Model):
    """How a dataset is cached."""

    runtime_ref: Reference
    """The CacheRuntime that holds its blocks."""


class Samples(_Model):
    """How files are grouped into samples."""

    key: Literal["path", "stem"] = "path"
    """`path`: files of one directory that share their name up to the first dot; `stem`: also across directories."""


class DatasetSpec(_Model):
    """What a dataset is made of."""

    mounts: list[Mount] = Field(min_length=1)
    repo: Repo
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


class Dataset(_Model):
    """One namespace over sources, with versions and a cache."""

    api_version: Literal["forebay.dev/v1alpha1"]
    kind: Literal["Dataset"]
    metadata: Metadata
    spec: DatasetSpec


class Tier(_Model):
    """One cache directory."""

    path: Annotated[str, Field(pattern="^/")]
    """Absolute path of the directory; created if it is missing."""
    capacity: Bytes
    """Bytes it may take on the disk."""
    free_floor: Bytes = 0
    """Bytes of the file system that stay free, whatever the capacity."""


class CacheRuntimeSpec(_Model):
    """The cache of a node."""

    tiers: list[Tier] = Field(min_length=1, max_length=1)
    """Exactly one, for now."""


class CacheRuntime(_Model):
    """A cache that datasets share."""

    api_version: Literal["forebay.dev/v1alpha1"]
    kind: Literal["CacheRuntime"]
    metadata: Metadata
    spec: CacheRuntimeSpec


Resource = Dataset | CacheRuntime
KINDS: dict[str, type[Dataset | CacheRuntime]] = {"Dataset": Dataset, "CacheRuntime": CacheRuntime}
