"""The cache of a node, as declared: its directories, and the workers that it belongs to."""

from __future__ import annotations

import itertools
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cache_runtime.peers import Member, Members
from cache_runtime.peers.membership import checked
from dataset_controller.fields import Bytes, Duration, LocalPath, Metadata, Model, Name

WORKER_PORT = 7070


class Tier(Model):
    """One cache directory."""

    path: LocalPath
    """Absolute path of the directory; created if it is missing."""
    capacity: Bytes = Field(gt=0)
    """Bytes it may take on the disk."""
    free_floor: Bytes = 0
    """Bytes of the file system that stay free, whatever the capacity."""

    @model_validator(mode="after")
    def _is_enough(self) -> Tier:
        from cache_runtime.store.layout import MIN_CAPACITY_BYTES  # with numpy

        if self.capacity < MIN_CAPACITY_BYTES:
            least = MIN_CAPACITY_BYTES >> 20
            raise ValueError(f"capacity of {self.path} is {self.capacity} bytes; a cache takes at least {least}Mi")
        return self


class WorkerMember(Model):
    """A worker that is named once and for all."""

    name: Annotated[str, Field(pattern="^[!-~]+$")]
    """What placement goes by: a worker that keeps its name keeps its blocks."""
    url: str
    """Where it listens: `http://host:port` or `https://host:port`."""
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Its share of the blocks, relative to the others'."""

    @property
    def member(self) -> Member:
        """The worker as placement takes it."""
        return Member(self.name, self.url, self.weight)


class WorkersDns(Model):
    """Workers behind a DNS name, one address each, as a headless service has them."""

    host: Annotated[str, Field(min_length=1)]
    port: int = Field(default=WORKER_PORT, ge=1, le=65535)
    scheme: Literal["http", "https"] = "http"


class WorkersTls(Model):
    """What this node shows to workers, and whom it believes; files in PEM format."""

    ca_file: LocalPath | None = None
    """Certificates that sign those of the workers, instead of the system's."""
    cert_file: LocalPath | None = None
    """This node's own certificate, for workers that ask for one."""
    key_file: LocalPath | None = None
    """Its key."""


class Workers(Model):
    """The workers of a cluster. One of `members`, `file` and `dns` names them; all nodes should agree."""

    members: list[WorkerMember] = Field(default_factory=list)
    file: LocalPath | None = None
    """Lines of `name url [weight]`, read again when it changes."""
    dns: WorkersDns | None = None
    token_file: LocalPath | None = None
    """Its first line is what workers are shown; the environment may name another one."""
    tls: WorkersTls | None = None

    @model_validator(mode="after")
    def _one_list(self) -> Workers:
        named = [name for name in ("members", "file", "dns") if getattr(self, name)]
        if len(named) != 1:
            raise ValueError(f"name the workers by one of members, file and dns, found {' and '.join(named) or 'none'}")
        Members(checked(each.member) for each in self.members)
        return self

    @model_validator(mode="after")
    def _certificate_has_its_key(self) -> Workers:
        if self.tls is not None and (self.tls.cert_file is None) != (self.tls.key_file is None):
            raise ValueError("tls.certFile and tls.keyFile go together")
        return self


class Autoscale(Model):
    """Between which numbers of workers the operator chooses; it sets `spec.replicas`."""

    min_replicas: int = Field(default=1, ge=1)
    max_replicas: int = Field(ge=1)
    target_used_percent: int = Field(default=85, ge=1, le=100)
    """More workers when the datasets in use fill more of the capacity than this."""
    stabilisation: Duration = 300.0
    """How long fewer workers must have been enough before some leave."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Autoscale:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"maxReplicas ({self.max_replicas}) is less than minReplicas ({self.min_replicas})")
        return self


class PodSettings(Model):
    """What the pods of the workers have beside what they need; as in a pod's own specification."""

    image: str | None = None
    """The operator's own, if none is named."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: list[dict[Literal["name"], Name]] = Field(default_factory=list)
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the nodes whose disks are used; at most one worker runs on each."""
    tolerations: list[dict[str, Any]] = Field(default_factory=list)
    resources: dict[Literal["limits", "requests"], dict[str, str | int]] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class CacheRuntimeSpec(Model):
    """The cache of a node, and in Kubernetes how many nodes have it."""

    tiers: list[Tier] = Field(min_length=1)
    """Its directories, one for each disk."""
    workers: Workers | None = None
    """The cluster it belongs to; without one a node caches for itself. In Kubernetes it follows from the pods."""
    replicas: int = Field(default=1, ge=0)
    """Workers in Kubernetes, each on a node of its own."""
    port: int = Field(default=WORKER_PORT, ge=1, le=65535)
    """Where the workers listen in Kubernetes."""
    pods: PodSettings = PodSettings()
    """The workers' pods in Kubernetes."""
    drain_timeout: Duration = 600.0
    """How long a worker that leaves may take to hand on what only it has."""
    autoscale: Autoscale | None = None

    @model_validator(mode="after")
    def _tiers_are_disjoint(self) -> CacheRuntimeSpec:
        paths = sorted(PurePosixPath(tier.path) for tier in self.tiers)
        for before, after in itertools.pairwise(paths):
            if after.is_relative_to(before):
                raise ValueError(
                    f"tiers {before} and {after} share a directory; give each one its own, on its own disk"
                )
        return self


class CacheRuntime(Model):
    """A cache that datasets share."""

    api_version: Literal["forebay.dev/v1alpha1"]
    kind: Literal["CacheRuntime"]
    metadata: Metadata
    spec: CacheRuntimeSpec
