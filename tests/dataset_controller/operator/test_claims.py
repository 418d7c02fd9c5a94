"""The volume that pods claim by a dataset's name: made once, made anew where it has to be, gone with its dataset."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dataset_controller.operator.mirror import Mirror
from dataset_controller.operator.naming import OWNER_UID
from dataset_controller.operator.observing import Observer, Surroundings
from dataset_controller.operator.planning.actions import Apply, Delete, PatchStatus, Ref
from dataset_controller.operator.planning.claims import ObservedClaim, plan_claim, plan_volume
from dataset_controller.operator.planning.dataset import plan_dataset
from dataset_controller.operator.queueing import Key
from dataset_controller.operator.routing import keys_of

OWNER: dict[str, Any] = {
    "apiVersion": "forebay.dev/v1alpha1",
    "kind": "Dataset",
    "metadata": {"name": "scenes", "namespace": "ml", "uid": "d-1", "generation": 1, "resourceVersion": "1"},
    "spec": {"repo": {"uri": "s3://bucket/scenes", "secretRef": {"name": "s3"}}},
}
VOLUME = Ref("v1", "PersistentVolume", "", "forebay-d-1")
CLAIM = Ref("v1", "PersistentVolumeClaim", "ml", "scenes")


class Cluster:
    """As much of Kubernetes as volumes and claims take: they bind, protect each other, and are not changed."""

    def __init__(self) -> None:
        self.objects: dict[Ref, dict[str, Any]] = {}
        self.secrets = ["s3"]
        self.is_used = False
        self._uids = count()

    def observed(self) -> ObservedClaim:
        return ObservedClaim(OWNER, self.secrets, self.objects)

    def reconcile(self) -> bool:
        """Do what is planned; say whether that was anything."""
        actions, _ = plan_claim(self.observed())
        for action in actions:
            if isinstance(action, Apply):
                ref = Ref.of(action.document)
                assert ref not in self.objects  # what is there could not be changed
                metadata = {**action.document["metadata"], "uid": f"u{next(self._uids)}"}
                self.objects[ref] = {**action.document, "metadata": metadata, "status": {"phase": "Pending"}}
            else:
                assert isinstance(action, Delete)
                self.delete(action.ref)
        return bool(actions)

    def delete(self, ref: Ref) -> None:
        if ref in self.objects:
            self.objects[ref]["metadata"]["deletionTimestamp"] = "now"

    def settle(self) -> None:
        """Bind what fits, and let go what nobody needs."""
        claim, volume = self.objects.get(CLAIM), self.objects.get(VOLUME)
        if claim and "deletionTimestamp" in claim["metadata"] and not self.is_used:
            del self.objects[CLAIM]
            claim = None
        if volume and "deletionTimestamp" in volume["metadata"] and not self._has(claim, volume):
            del self.objects[VOLUME]
            volume = None
        if claim and claim["status"]["phase"] == "Bound" and not (volume and self._has(claim, volume)):
            claim["status"] = {"phase": "Lost"}
        elif claim and volume and volume["spec"]["claimRef"].get("uid") in (None, claim["metadata"]["uid"]):
            spec = volume["spec"]
            volume["spec"] = {**spec, "claimRef": {**spec["claimRef"], "uid": claim["metadata"]["uid"]}}
            claim["status"] = {"phase": "Bound"}

    def _has(self, claim: dict[str, Any] | None, volume: dict[str, Any]) -> bool:
        return claim is not None and volume["spec"]["claimRef"].get("uid") == claim["metadata"]["uid"]

    def converge(self) -> str:
        for _ in range(12):
            is_done = not self.reconcile()
            before = {ref: str(found) for ref, found in self.objects.items()}
            self.settle()
            if is_done and before == {ref: str(found) for ref, found in self.objects.items()}:
                return plan_claim(self.observed())[1].reason
        raise AssertionError("it does not converge")


def test_a_dataset_gets_a_volume_and_a_claim_of_its_name_that_bind() -> None:
    cluster = Cluster()
    assert cluster.converge() == "Bound"
    assert cluster.objects.keys() == {VOLUME, CLAIM}
    spec = cluster.objects[VOLUME]["spec"]
    assert spec["csi"]["volumeAttributes"] == {"dataset": "scenes"}
    assert spec["csi"]["nodePublishSecretRef"] == {"name": "s3", "namespace": "ml"}
    assert spec["claimRef"]["uid"] == cluster.objects[CLAIM]["metadata"]["uid"]
    assert "ownerReferences" not in cluster.objects[VOLUME]["metadata"]  # none of a namespace owns one of the cluster
    assert cluster.objects[CLAIM]["metadata"]["ownerReferences"][0]["uid"] == "d-1"


def test_the_claim_is_made_first_so_that_no_volume_becomes_that_of_somebody_elses_claim() -> None:
    actions, _ = plan_claim(Cluster().observed())
    assert [Ref.of(each.document) for each in actions if isinstance(each, Apply)] == [CLAIM, VOLUME]


CHANGES = {
    "delete claim": lambda cluster: cluster.delete(CLAIM),
    "delete volume": lambda cluster: cluster.delete(VOLUME),
    "force volume away": lambda cluster: cluster.objects.pop(VOLUME, None),
    "use": lambda cluster: setattr(cluster, "is_used", True),
    "use no more": lambda cluster: setattr(cluster, "is_used", False),
    "other secret": lambda cluster: setattr(cluster, "secrets", ["other"]),
    "two secrets": lambda cluster: setattr(cluster, "secrets", ["s3", "other"]),
    "no secret": lambda cluster: setattr(cluster, "secrets", []),
    "reconcile": Cluster.reconcile,
    "settle": Cluster.settle,
}


@given(st.lists(st.sampled_from(sorted(CHANGES)), max_size=30))
def test_whatever_is_done_to_them_it_converges_and_what_is_bound_is_as_declared(steps: list[str]) -> None:
    cluster = Cluster()
    for step in steps:
        CHANGES[step](cluster)
    cluster.is_used = False
    reason = cluster.converge()
    if len(cluster.secrets) > 1:
        assert reason == "SeveralSecrets"
        cluster.secrets = ["one"]
        reason = cluster.converge()
    if reason == "Outdated":  # which says how to go on
        cluster.delete(CLAIM)
        reason = cluster.converge()
    assert reason == "Bound"
    given_secret = cluster.objects[VOLUME]["spec"]["csi"].get("nodePublishSecretRef", {}).get("name")
    assert given_secret == next(iter(cluster.secrets), None)
    assert cluster.objects[VOLUME]["spec"]["claimRef"]["uid"] == cluster.objects[CLAIM]["metadata"]["uid"]


def test_a_claim_that_pods_use_is_not_deleted_because_a_secret_is_another_one() -> None:
    cluster = Cluster()
    cluster.converge()
    cluster.secrets = ["other"]
    actions, finding = plan_claim(cluster.observed())
    assert actions == []
    assert (finding.holds, finding.reason) == (False, "Outdated")
    assert "kubectl -n ml delete pvc scenes" in finding.message


def test_volumes_of_datasets_that_are_gone_are_deleted_and_others_are_not() -> None:
    cluster = Cluster()
    cluster.converge()
    volume = cluster.objects[VOLUME]
    assert plan_volume(volume, is_owned=True) == []
    assert plan_volume(volume, is_owned=False) == [Delete(VOLUME, volume["metadata"]["uid"])]
    cluster.delete(VOLUME)
    assert plan_volume(volume, is_owned=False) == []


def observer(claims: bool) -> tuple[Observer, Mirror]:
    mirror = Mirror()
    mirror.put(OWNER)
    return Observer(mirror, Surroundings(claims=claims)), mirror


def told(observer: Observer, owner: dict[str, Any] = OWNER, refusal: str | None = None) -> dict[str, dict[str, Any]]:
    *_, last = plan_dataset(observer.dataset(owner, refusal), datetime.now(UTC))
    assert isinstance(last, PatchStatus)
    return {each["type"]: each for each in last.status["conditions"]}


def test_nothing_is_made_or_told_unless_it_is_asked_for() -> None:
    assert "ClaimReady" not in told(observer(claims=False)[0])
    assert told(observer(claims=True)[0])["ClaimReady"]["reason"] == "BeingMade"


def test_a_secret_of_several_is_named_by_an_annotation() -> None:
    mounts = [{"name": "raw", "uri": "s3://raw/", "path": "", "secretRef": {"name": "other"}}]
    several = {**OWNER, "spec": {**OWNER["spec"], "mounts": mounts}}
    found = told(observer(claims=True)[0], several)["ClaimReady"]
    assert (found["status"], found["reason"]) == ("False", "SeveralSecrets")
    assert "annotation forebay.dev/secret" in found["message"]
    metadata = {**OWNER["metadata"], "annotations": {"forebay.dev/secret": "all"}, "generation": 2}
    seeing, mirror = observer(claims=True)
    named = {**several, "metadata": {**metadata, "resourceVersion": "2"}}
    mirror.put(named)
    assert told(seeing, named)["ClaimReady"]["reason"] == "BeingMade"
    facts = seeing.facts("ml", "scenes")
    assert facts is not None
    assert facts.secrets == ["all"]  # as the webhook's volumes


def test_what_the_server_refuses_is_told() -> None:
    found = told(observer(claims=True)[0], refusal="there is a PersistentVolumeClaim scenes already")["SpecApplied"]
    assert (found["status"], found["message"]) == ("False", "there is a PersistentVolumeClaim scenes already")


def test_a_volume_concerns_its_dataset_and_itself_when_that_is_gone() -> None:
    _, mirror = observer(claims=True)
    labels = {OWNER_UID: "d-1"}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": VOLUME.name, "uid": "v", "labels": labels},
    }
    mirror.put(volume)
    assert keys_of(mirror, None, volume) == {Key("Dataset", "ml", "scenes")}
    mirror.drop(Ref.of(OWNER), "d-1")
    itself = Key("PersistentVolume", "", VOLUME.name)
    assert itself in keys_of(mirror, OWNER, None)
    assert keys_of(mirror, None, volume) == {itself}
