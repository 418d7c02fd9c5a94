"""When a pod that waits for its dataset may be scheduled: never is not among the answers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from dataset_controller.operator.naming import CACHED, DATASET, START_AT, START_WITHIN
from dataset_controller.operator.planning.actions import Action, OpenGate, Ref, Tell
from dataset_controller.quantities import parse_duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PERCENT = re.compile(r"([0-9]{1,3})%?")
_WITHIN_SECONDS = 3600.0


@dataclass(frozen=True)
class DatasetFacts:
    """What matters of a dataset to the pods that read it.

    Attributes:
        name: Its name.
        runtime: The CacheRuntime that it names; "" for none.
        has_runtime: Whether that is there.
        percent: How much of it is cached; None while nobody counted.
        size_bytes: Of its version.
        nodes: About how many of them are on some nodes.
        secrets: The names of those that it names.
    """

    name: str
    runtime: str
    has_runtime: bool
    percent: int | None
    size_bytes: int = 0
    nodes: Mapping[str, int] = field(default_factory=dict)
    secrets: Sequence[str] = ()


@dataclass(frozen=True)
class ObservedPod:
    """A pod that names a dataset.

    Attributes:
        pod: As the API server says it.
        facts: Of the dataset; None if there is none.
    """

    pod: dict[str, Any]
    facts: DatasetFacts | None


class Wish(NamedTuple):
    """What a pod waits for.

    Attributes:
        percent: So much is to be cached.
        seconds: It waits no longer than that.
    """

    percent: int
    seconds: float


class Opening(NamedTuple):
    """Why a pod need not wait.

    Attributes:
        reason: One word in camel case.
        message: For people.
        is_warning: Whether what it waits for is not there.
    """

    reason: str
    message: str
    is_warning: bool = True


def wish_of(annotations: Mapping[str, str]) -> Wish | None:
    """Return what the annotations of a pod ask for; None if they ask for nothing.

    Raises:
        ValueError: If they cannot be understood; the message names the annotation.
    """
    at, within = annotations.get(START_AT), annotations.get(START_WITHIN)
    if at is None:
        return None
    match = _PERCENT.fullmatch(at)
    if match is None or int(match[1]) > 100:
        raise ValueError(f'{START_AT}: expected a percentage such as "80%", found {at[:40]!r}')
    try:
        seconds = _WITHIN_SECONDS if within is None else parse_duration(within)
    except ValueError as error:
        raise ValueError(f"{START_WITHIN}: {str(error)[:120]}") from error
    return Wish(int(match[1]), seconds)


def opening(wish: Wish, name: str, facts: DatasetFacts | None) -> Opening | None:
    """Say why a pod need not wait for a dataset; None if it is to wait."""
    if facts is None:
        return Opening("NoDataset", f"this namespace has no Dataset {name}: nothing to wait for")
    if not facts.runtime:
        return Opening("NoCache", f"Dataset {name} names no CacheRuntime: nothing of it will be cached")
    if not facts.has_runtime:
        return Opening("NoCache", f"Dataset {name} names CacheRuntime {facts.runtime}, which is not there")
    if facts.percent is not None and facts.percent >= wish.percent:
        return Opening("Cached", f"{facts.percent} % of Dataset {name} are cached", is_warning=False)
    return None


def is_gated(pod: Mapping[str, Any]) -> bool:
    """Say whether a pod has our gate."""
    gates = (pod.get("spec") or {}).get("schedulingGates") or ()
    return any(gate.get("name") == CACHED for gate in gates)


def plan_pod(observed: ObservedPod, now: datetime) -> list[Action]:
    """Decide whether a pod that waits may be scheduled. Applied in full, it plans nothing."""
    pod = observed.pod
    found = _opening(observed, now) if is_gated(pod) else None
    if found is None:
        return []
    ref = Ref.of(pod)
    return [
        OpenGate(ref, pod["metadata"]["uid"], CACHED),
        Tell(ref, found.reason, f"may be scheduled: {found.message}", is_warning=found.is_warning),
    ]


def seconds_left(observed: ObservedPod, now: datetime) -> float:
    """Return how long a pod may still wait; for ever if it does not."""
    metadata = observed.pod["metadata"]
    try:
        wish = wish_of(metadata.get("annotations") or {})
    except ValueError:
        return 0.0 if is_gated(observed.pod) else float("inf")
    created = metadata.get("creationTimestamp")
    if wish is None or created is None or not is_gated(observed.pod):
        return float("inf")
    since = datetime.strptime(created, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return max(0.0, wish.seconds - (now - since).total_seconds())


def _opening(observed: ObservedPod, now: datetime) -> Opening | None:
    metadata = observed.pod["metadata"]
    name = (metadata.get("labels") or {}).get(DATASET, "")
    try:
        wish = wish_of(metadata.get("annotations") or {})
    except ValueError as error:
        return Opening("BadAnnotation", str(error))
    if wish is None:
        return Opening("NotAsked", f"annotation {START_AT} is not there any more", is_warning=False)
    found = opening(wish, name, observed.facts)
    if found is None and seconds_left(observed, now) <= 0:
        known = observed.facts.percent if observed.facts else None
        state = f"{known} %" if known is not None else "nobody knows how much"
        return Opening("WaitedLongEnough", f"{wish.percent} % of Dataset {name} were waited for, {state} cached")
    return found
