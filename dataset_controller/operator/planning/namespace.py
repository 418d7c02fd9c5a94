"""What a namespace takes: an agent while it has a dataset or a migration, nothing after."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dataset_controller.operator.objects.agent import agent_objects
from dataset_controller.operator.objects.workers import token_name
from dataset_controller.operator.planning.owning import applied, surplus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dataset_controller.model import Dataset
    from dataset_controller.operator.planning.actions import Action, Ref
    from dataset_controller.runtime_model import CacheRuntime


@dataclass(frozen=True)
class ObservedNamespace:
    """A namespace.

    Attributes:
        name: Its name.
        datasets: Those in it.
        runtimes: Those in it.
        objects: What the operator made for its agent.
        image: The operator's own.
        has_migrations: Whether there are some: their jobs need the agent's account, also without a dataset.
    """

    name: str
    datasets: Sequence[Dataset]
    runtimes: Sequence[CacheRuntime]
    objects: Mapping[Ref, dict[str, Any]] = field(default_factory=dict)
    image: str = "forebay"
    has_migrations: bool = False


def plan_namespace(observed: ObservedNamespace) -> list[Action]:
    """Decide what a namespace takes. Applied in full, it plans nothing; each action may be done again."""
    documents: list[dict[str, Any]] = []
    if observed.datasets or observed.has_migrations:
        tokens = [token_name(runtime) for runtime in observed.runtimes]
        documents = agent_objects(observed.name, observed.datasets, observed.image, tokens)
    return [*applied(documents, observed.objects), *surplus(documents, observed.objects)]
