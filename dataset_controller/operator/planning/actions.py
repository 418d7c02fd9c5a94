"""What a plan consists of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


class Ref(NamedTuple):
    """Names an object of the cluster; one of all of it is in namespace ""."""

    api_version: str
    kind: str
    namespace: str
    name: str

    @classmethod
    def of(cls, document: dict[str, Any]) -> Ref:
        """Return which object a document is."""
        metadata = document["metadata"]
        return cls(document["apiVersion"], document["kind"], metadata.get("namespace", ""), metadata["name"])


@dataclass(frozen=True)
class Apply:
    """Make an object be as it says, by server-side apply: what it does not say stays as it is."""

    document: dict[str, Any]


@dataclass(frozen=True)
class CreateToken:
    """Make a secret with a random `token`; one of its name that is there is neither read nor changed."""

    document: dict[str, Any]


@dataclass(frozen=True)
class Delete:
    """Delete an object, and what it owns, unless it is another one by now."""

    ref: Ref
    uid: str


@dataclass(frozen=True)
class SetReplicas:
    """Scale what is declared: only an autoscaler does."""

    ref: Ref
    replicas: int


@dataclass(frozen=True)
class PatchStatus:
    """Tell how an object is: its status as far as the operator tells it."""

    ref: Ref
    status: dict[str, Any]


@dataclass(frozen=True)
class Tell:
    """Write an event about an object; the same one is counted, not repeated."""

    ref: Ref
    reason: str
    message: str
    is_warning: bool = False


@dataclass(frozen=True)
class OpenGate:
    """Take a scheduling gate away from a pod, unless it is another pod by now; the gates of others stay."""

    ref: Ref
    uid: str
    gate: str


Action = Apply | CreateToken | Delete | SetReplicas | PatchStatus | Tell | OpenGate
