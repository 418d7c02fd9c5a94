"""From the mirror to what plans are made of."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from dataset_controller.crds import GROUP
from dataset_controller.fields import API_VERSION
from dataset_controller.model import Dataset
from dataset_controller.operations import OPERATIONS, dataset_names
from dataset_controller.operator.naming import DATASET, OWNER_UID, SECRET
from dataset_controller.operator.objects.pods import secrets_of
from dataset_controller.operator.planning.actions import Ref
from dataset_controller.operator.planning.claims import ObservedClaim
from dataset_controller.operator.planning.cycles import cycle_of
from dataset_controller.operator.planning.dataset import ObservedDataset
from dataset_controller.operator.planning.gates import DatasetFacts, ObservedPod
from dataset_controller.operator.planning.namespace import ObservedNamespace
from dataset_controller.operator.planning.owning import is_leaving
from dataset_controller.operator.planning.runs import ObservedOperation
from dataset_controller.operator.planning.runtime import ObservedRuntime
from dataset_controller.operator.routing import AGENT_COMPONENT, run_after, runtime_name
from dataset_controller.runtime_model import CacheRuntime

if TYPE_CHECKING:
    from pydantic import BaseModel

    from dataset_controller.operations import Operation
    from dataset_controller.operator.mirror import Document, Mirror

_TOKEN_SECONDS = 600.0
"""How long a token that was made is believed to be there: the operator may not look at secrets."""
_AGENT_KINDS = ("ServiceAccount", "Role", "RoleBinding", "Deployment")


class InvalidSpecError(Exception):
    """A specification that the server accepted is none; the message says what to do."""


@dataclass(frozen=True)
class Surroundings:
    """What plans need to know of the cluster as a whole.

    Attributes:
        image: Of pods, if nothing names another one.
        budget_version: See `disruption_budget`.
        claims: Whether each dataset has a volume that pods can claim.
    """

    image: str = "forebay"
    budget_version: str = "policy/v1"
    claims: bool = False


@dataclass
class Models:
    """Specifications as models; each is parsed once for each generation. Any number of threads."""

    _known: dict[str, tuple[Any, BaseModel | InvalidSpecError]] = field(default_factory=dict)
    _good: dict[str, BaseModel] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, model: type[BaseModel], document: Document) -> Any:
        """Return an object as its model.

        Raises:
            InvalidSpecError: If it is none.
        """
        uid, generation = document["metadata"]["uid"], document["metadata"].get("generation")
        with self._lock:
            known = self._known.get(uid)
        if known is None or known[0] != generation:
            known = (generation, _parsed(model, document))
            with self._lock:
                self._known[uid] = known
                if not isinstance(known[1], InvalidSpecError):
                    self._good[uid] = known[1]
        if isinstance(known[1], InvalidSpecError):
            raise known[1]
        return known[1]

    def last_good(self, model: type[BaseModel], document: Document) -> Any:
        """Return an object as its model; of one that is none now, as it was before; None if it never was one."""
        try:
            return self.get(model, document)
        except InvalidSpecError:
            return self._good.get(document["metadata"]["uid"])

    def forget(self, uid: str) -> None:
        """Forget an object that is gone."""
        with self._lock:
            self._known.pop(uid, None)
            self._good.pop(uid, None)


class Observer:
    """Reads the mirror.

    Args:
        mirror: Of the cluster.
        surroundings: See there.
    """

    def __init__(self, mirror: Mirror, surroundings: Surroundings) -> None:
        self._mirror = mirror
        self._surroundings = surroundings
        self.models = Models()
        self._tokens: dict[str, float] = {}

    def runtime(self, owner: Document, refusal: str | None) -> ObservedRuntime:
        """Observe a cache runtime.

        Raises:
            InvalidSpecError: If it is none.
        """
        runtime = self.models.get(CacheRuntime, owner)
        namespace, uid = owner["metadata"]["namespace"], owner["metadata"]["uid"]
        users = [
            document
            for document in self._mirror.of_kind("Dataset", namespace)
            if runtime_name(document) == runtime.metadata.name
        ]
        datasets = [found for found in (self.models.last_good(Dataset, user) for user in users) if found is not None]
        sizes = {
            user["metadata"]["name"]: size
            for user in users
            if (size := (user.get("status") or {}).get("sizeBytes")) is not None
        }
        return ObservedRuntime(
            owner,
            runtime,
            datasets,
            objects=self._mirror.owned_by(uid),
            has_token=time.monotonic() < self._tokens.get(uid, 0.0),
            budget_version=self._surroundings.budget_version,
            default_image=self._surroundings.image,
            sizes=sizes,
            refusal=refusal,
        )

    def token_made(self, uid: str) -> None:
        """Note that a runtime has its token."""
        self._tokens[uid] = time.monotonic() + _TOKEN_SECONDS

    def forget(self, uid: str) -> None:
        """Forget an object that is gone."""
        self._tokens.pop(uid, None)
        self.models.forget(uid)

    def dataset(self, owner: Document, refusal: str | None = None) -> ObservedDataset:
        """Observe a dataset.

        Raises:
            InvalidSpecError: If it is none.
        """
        dataset = self.models.get(Dataset, owner)
        name = runtime_name(owner)
        has_runtime = bool(name) and self._named("CacheRuntime", owner, name) is not None
        claim = None
        if self._surroundings.claims:
            claim = ObservedClaim(
                owner, _volume_secrets(owner, dataset), self._mirror.owned_by(owner["metadata"]["uid"])
            )
        return ObservedDataset(owner, dataset, has_runtime, claim, refusal)

    def has_owner(self, owned: Document) -> bool:
        """Say whether that which an object was made for is there."""
        return self._mirror.of_uid(str((owned["metadata"].get("labels") or {}).get(OWNER_UID, ""))) is not None

    def facts(self, namespace: str, name: str) -> DatasetFacts | None:
        """Return what matters of a dataset to pods that read it; None if there is none."""
        document = self._mirror.get(Ref(API_VERSION, "Dataset", namespace, name))
        if document is None or is_leaving(document):
            return None
        runtime, status = runtime_name(document), document.get("status") or {}
        has_runtime = bool(runtime) and self._named("CacheRuntime", document, runtime) is not None
        nodes = {each["node"]: each["bytes"] for each in status.get("cachedOn") or ()}
        size, percent = status.get("sizeBytes") or 0, status.get("cachedPercent")
        dataset = self.models.last_good(Dataset, document)
        secrets = [] if dataset is None else _volume_secrets(document, dataset)
        return DatasetFacts(name, runtime, has_runtime, percent, size, nodes, secrets)

    def pod(self, owner: Document) -> ObservedPod:
        """Observe a pod that waits for its dataset."""
        metadata = owner["metadata"]
        return ObservedPod(owner, self.facts(metadata["namespace"], metadata["labels"].get(DATASET, "")))

    def namespace(self, name: str) -> ObservedNamespace:
        """Observe a namespace."""
        made = {
            Ref.of(each): each
            for kind in _AGENT_KINDS
            for each in self._mirror.of_kind(kind, name)
            if (each["metadata"].get("labels") or {}).get("app.kubernetes.io/component") == AGENT_COMPONENT
        }
        return ObservedNamespace(
            name,
            self._all(Dataset, name),
            self._all(CacheRuntime, name),
            made,
            self._surroundings.image,
            has_migrations=any(True for _ in self._mirror.of_kind("DataMigrate", name)),
        )

    def operation(self, owner: Document, refusal: str | None) -> ObservedOperation:
        """Observe an operation.

        Raises:
            InvalidSpecError: If it is none.
        """
        operation: Operation = self.models.get(OPERATIONS[owner["kind"]], owner)
        names = dataset_names(operation)
        declared = {name: found for name in names if (found := self._named("Dataset", owner, name)) is not None}
        datasets = {name: self.models.last_good(Dataset, document) for name, document in declared.items()}
        revisions = {name: (document.get("status") or {}).get("revision") for name, document in declared.items()}
        cache = self._named("CacheRuntime", owner, runtime_name(declared.get(names[0]))) if names else None
        predecessors = {
            f"{each.kind}/{each.name}": self._phase(each.kind, owner, each.name) for each in operation.spec.run_after
        }
        return ObservedOperation(
            owner,
            operation,
            datasets={name: found for name, found in datasets.items() if found is not None},
            revisions={name: found for name, found in revisions.items() if found is not None},
            runtime=None if cache is None else self.models.last_good(CacheRuntime, cache),
            ready_workers=int(((cache or {}).get("status") or {}).get("readyReplicas") or 0),
            predecessors=predecessors,
            cycle=cycle_of(f"{owner['kind']}/{owner['metadata']['name']}", lambda each: self._waits_for(owner, each)),
            objects=self._mirror.owned_by(owner["metadata"]["uid"]),
            image=self._surroundings.image,
            refusal=refusal,
        )

    def _waits_for(self, beside: Document, operation: str) -> list[str]:
        """Name what an operation runs after."""
        kind, _, name = operation.partition("/")
        found = self._named(kind, beside, name)
        return [] if found is None else run_after(found)

    def _phase(self, kind: str, owner: Document, name: str) -> str | None:
        found = self._named(kind, owner, name)
        return None if found is None else str((found.get("status") or {}).get("phase") or "Pending")

    def _named(self, kind: str, beside: Document, name: str) -> Document | None:
        """Return an object of the same namespace that is there to stay."""
        found = self._mirror.get(Ref(API_VERSION, kind, beside["metadata"]["namespace"], name)) if name else None
        return None if found is None or is_leaving(found) else found

    def _all(self, model: type[BaseModel], namespace: str) -> list[Any]:
        documents = self._mirror.of_kind(model.__name__, namespace)
        found = [self.models.last_good(model, document) for document in documents]
        return [each for each in found if each is not None]


def _parsed(model: type[BaseModel], document: Document) -> BaseModel | InvalidSpecError:
    plain = {
        "apiVersion": document["apiVersion"],
        "kind": document["kind"],
        "metadata": {"name": document["metadata"]["name"]},
        "spec": document.get("spec"),
    }
    try:
        return model.model_validate(plain)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"]).lstrip(".")
        reason = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":  # the definitions are of a newer version than this operator
            reason = "this version does not know the field: install the operator of the definitions, or remove it"
        return InvalidSpecError(f"{field}: {reason}; until that is mended, what was declared before stays in effect")


def _volume_secrets(owner: Document, dataset: Dataset) -> list[str]:
    """Return the secrets that a volume of a dataset takes: one that has all of them, if it is named."""
    named = (owner["metadata"].get("annotations") or {}).get(SECRET)
    return [named] if named else secrets_of([dataset])


def is_ours(document: Document) -> bool:
    """Say whether an object is one of the kinds that people declare here."""
    return str(document["apiVersion"]).startswith(f"{GROUP}/")
