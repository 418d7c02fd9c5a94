"""The queue, the mirror and the lease, each against a plain model."""

from __future__ import annotations

import threading
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dataset_controller.operator.leading import Lease
from dataset_controller.operator.mirror import Mirror
from dataset_controller.operator.planning.actions import Ref
from dataset_controller.operator.queueing import Key, WorkQueue

KEYS = [Key("Dataset", "ml", name) for name in "abc"]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "later", "take", "done", "failed", "wait"]), st.sampled_from(KEYS)), max_size=60
)


@given(STEPS)
def test_no_key_is_lost_or_worked_on_twice_at_a_time(steps: list[tuple[str, Key]]) -> None:
    clock = Clock()
    queue = WorkQueue(clock, jitter=lambda: 1.0)
    due: dict[Key, float] = {}
    busy: set[Key] = set()
    failures: dict[Key, int] = {}
    for step, key in steps:
        if step in ("add", "later"):
            after = 0.0 if step == "add" else 3.0
            queue.add(key, after)
            due[key] = min(due.get(key, float("inf")), clock.now + after)
        elif step == "take":
            takeable = {each for each, when in due.items() if when <= clock.now and each not in busy}
            taken = queue.take(0.0)
            assert (taken in takeable) if takeable else taken is None
            if taken is not None:
                del due[taken]
                busy.add(taken)
        elif step == "done" and key in busy:
            queue.done(key)
            busy.discard(key)
            failures.pop(key, None)
        elif step == "failed" and key in busy:
            seconds = queue.failed(key)
            assert seconds == min(0.5 * 2 ** failures.get(key, 0), 120.0)
            failures[key] = failures.get(key, 0) + 1
            busy.discard(key)
            due[key] = min(due.get(key, float("inf")), clock.now + seconds)
        elif step == "wait":
            clock.now += 1.0
    clock.now += 1000.0
    for key in busy:
        queue.done(key)
    left = set()
    while (taken := queue.take(0.0)) is not None:
        left.add(taken)
    assert left == set(due)


def test_who_waits_is_woken() -> None:
    queue = WorkQueue()
    taken: list[Key | None] = []
    thread = threading.Thread(target=lambda: taken.append(queue.take(30.0)))
    thread.start()
    queue.add(KEYS[0])
    thread.join(10.0)
    assert taken == [KEYS[0]]
    thread = threading.Thread(target=lambda: taken.append(queue.take(30.0)))
    thread.start()
    queue.close()
    thread.join(10.0)
    assert taken == [KEYS[0], None]


def _document(name: str, uid: str, version: int) -> dict[str, Any]:
    labels = {"forebay.dev/owner-uid": "owner"}
    metadata = {"name": name, "namespace": "ml", "uid": uid, "resourceVersion": str(version), "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


@given(st.data())
def test_the_mirror_ends_as_the_cluster_whatever_order_answers_and_events_come_in(data: st.DataObject) -> None:
    history: list[tuple[str, dict[str, Any]]] = []
    alive: dict[str, dict[str, Any]] = {}
    for version in range(1, data.draw(st.integers(1, 20))):
        name = data.draw(st.sampled_from("ab"))
        if name in alive and data.draw(st.booleans()):
            history.append(("DELETED", _document(name, alive.pop(name)["metadata"]["uid"], version)))
        else:
            uid = alive[name]["metadata"]["uid"] if name in alive else f"{name}{version}"
            alive[name] = _document(name, uid, version)
            history.append(("MODIFIED", alive[name]))
    mirror = Mirror()
    answers = [document for kind, document in history if kind == "MODIFIED"]
    for kind, document in history:
        if kind == "DELETED":
            mirror.drop(Ref.of(document), document["metadata"]["uid"])
        else:
            mirror.put(document)
        known = int(document["metadata"]["resourceVersion"])
        late = [each for each in answers if int(each["metadata"]["resourceVersion"]) <= known]
        is_late: bool = data.draw(st.booleans())
        if late and is_late:
            mirror.put(data.draw(st.sampled_from(late)))  # the answer to a call of ours, after the watch
    assert {document["metadata"]["name"]: document for document in mirror.of_kind("ConfigMap", "ml")} == alive
    assert set(mirror.owned_by("owner")) == {Ref.of(document) for document in alive.values()}
    for document in alive.values():
        assert mirror.of_uid(document["metadata"]["uid"]) == document


class FakeLeases:
    """One lease, as the API server keeps it."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.is_away = False

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        from kubernetes.client import ApiException

        if self.is_away:
            raise ApiException(status=503)
        if method == "GET":
            if self.lease is None:
                raise ApiException(status=404)
            return self.lease
        assert body is not None
        if method == "POST" and self.lease is not None:
            raise ApiException(status=409)
        if method == "PUT" and body["metadata"].get("resourceVersion") != str(self.version):
            raise ApiException(status=409)
        self.version += 1
        metadata = {**body["metadata"], "uid": "u", "resourceVersion": str(self.version)}
        self.lease = {**body, "metadata": metadata}
        return self.lease


@given(st.lists(st.tuples(st.sampled_from([0, 1, "away", "back"]), st.floats(0, 8)), max_size=60))
def test_two_never_hold_a_lease_at_a_time(steps: list[tuple[Any, float]]) -> None:
    from kubernetes.client import ApiException

    server, clock = FakeLeases(), Clock()
    leases = [Lease(server, "ns", "lease", f"holder-{number}", clock) for number in range(2)]  # type: ignore[arg-type]
    for who, seconds in steps:
        if isinstance(who, str):
            server.is_away = who == "away"
        else:
            try:
                leases[who].step()
            except ApiException as error:
                if error.status == 409:
                    leases[who].lost()
        assert not all(lease.is_held for lease in leases)
        clock.now += seconds
        assert not all(lease.is_held for lease in leases)


def test_a_lease_that_nobody_renews_is_taken() -> None:
    server, clock = FakeLeases(), Clock()
    first, second = (Lease(server, "ns", "lease", name, clock) for name in ("first", "second"))  # type: ignore[arg-type]
    first.step()
    second.step()
    assert (first.is_held, second.is_held) == (True, False)
    clock.now += 16
    second.step()
    assert (first.is_held, second.is_held) == (False, True)
