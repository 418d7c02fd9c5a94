"""Whether pods can claim a dataset as a volume, and what that takes; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dataset_controller.operator.naming import OWNER_UID, SECRET
from dataset_controller.operator.objects.claims import claim_objects
from dataset_controller.operator.planning.actions import Action, Apply, Delete, Ref
from dataset_controller.operator.planning.comparing import covers
from dataset_controller.operator.planning.conditions import Finding
from dataset_controller.operator.planning.owning import deleted, is_leaving, owned

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CLAIM_READY = "ClaimReady"


@dataclass(frozen=True)
class ObservedClaim:
    """The volume of a dataset in its cluster.

    Attributes:
        owner: The Dataset as the API server says it.
        secrets: Those that can be handed over with the volume; it can be one only.
        objects: What was made for the dataset.
    """

    owner: dict[str, Any]
    secrets: Sequence[str]
    objects: Mapping[Ref, dict[str, Any]]


def plan_claim(observed: ObservedClaim) -> tuple[list[Action], Finding]:
    """Decide what the claim takes, and what to tell of it.

    Of neither object can be changed what is said here, and a volume that had a claim takes no other one: both are made
    anew, the claim only when somebody deleted it, as pods may want to use it.
    """
    if len(observed.secrets) > 1:
        several = f"the dataset names {len(observed.secrets)} secrets, and a volume has one"
        next_step = (
            f"put them into one, with entries SECRET.OPTION, and name that in annotation {SECRET} of the Dataset"
        )
        return [], Finding(CLAIM_READY, False, "SeveralSecrets", f"{several}: {next_step}")
    volume, claim = _wanted(observed)
    volume_there, claim_there = (observed.objects.get(Ref.of(each)) for each in (volume, claim))
    if any(each is not None and is_leaving(each) for each in (volume_there, claim_there)):
        keeper = claim_there if claim_there is not None and not is_leaving(claim_there) else None
        message = "the one before it is being deleted, when no pod uses it any more"
        return _gone(keeper) if keeper else [], _pending("Leaving", message)
    if claim_there is not None and _is_lost(claim_there, volume_there):
        return _gone(claim_there), _pending("BeingMade")
    if volume_there is None:
        # the claim first: if there is one of somebody else, the volume would become its own
        return [*([] if claim_there else [Apply(claim)]), Apply(volume)], _pending("BeingMade")
    if claim_there is None:
        is_usable = _is_as_wanted(volume_there, volume) and not _taker(volume_there)
        return [Apply(claim)] if is_usable else _gone(volume_there), _pending("BeingMade")
    if not _is_as_wanted(volume_there, volume):
        command = f"kubectl -n {claim['metadata']['namespace']} delete pvc {claim['metadata']['name']}"
        message = f"the dataset names another secret now: {command}, and it is made anew when no pod uses it any more"
        return [], Finding(CLAIM_READY, False, "Outdated", message)
    if _phase(claim_there) != "Bound":
        return [], _pending("NotBound")
    return [], Finding(CLAIM_READY, True, "Bound", f"PersistentVolumeClaim {claim['metadata']['name']}")


def plan_volume(volume: dict[str, Any], *, is_owned: bool) -> list[Action]:
    """Delete a volume whose dataset is gone: none of a namespace can own one of the whole cluster."""
    return [] if is_owned or is_leaving(volume) else _gone(volume)


def _wanted(observed: ObservedClaim) -> tuple[dict[str, Any], dict[str, Any]]:
    volume, claim = claim_objects(observed.owner, next(iter(observed.secrets), None))
    metadata = volume["metadata"]
    labels = {**metadata["labels"], OWNER_UID: observed.owner["metadata"]["uid"]}
    return {**volume, "metadata": {**metadata, "labels": labels}}, owned(observed.owner, claim)


def _is_as_wanted(there: dict[str, Any], volume: dict[str, Any]) -> bool:
    secrets = [each["spec"]["csi"].get("nodePublishSecretRef") for each in (there, volume)]
    return covers(there, volume) and secrets[0] == secrets[1]


def _is_lost(claim: dict[str, Any], volume: dict[str, Any] | None) -> bool:
    """Say whether a claim can never have its volume (again)."""
    return _phase(claim) == "Lost" or (volume is not None and _taker(volume) not in ("", claim["metadata"].get("uid")))


def _phase(claim: dict[str, Any]) -> str:
    return str((claim.get("status") or {}).get("phase") or "")


def _taker(volume: dict[str, Any]) -> str:
    """Return the id of the claim that has, or had, a volume; "" if none ever did."""
    return str(volume["spec"].get("claimRef", {}).get("uid") or "")


def _gone(found: dict[str, Any]) -> list[Action]:
    action: Delete = deleted(Ref.of(found), found)
    return [action]


def _pending(reason: str, message: str = "") -> Finding:
    return Finding(CLAIM_READY, False, reason, message)
