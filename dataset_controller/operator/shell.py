"""Looks at one object after the other, and does what its plan says; a failure of one keeps no other waiting."""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dataset_controller.fields import API_VERSION
from dataset_controller.operations import OPERATIONS
from dataset_controller.operator.naming import MANAGER, OWNER_UID
from dataset_controller.operator.observing import InvalidSpecError, Observer, is_ours
from dataset_controller.operator.planning.actions import Action, Apply, CreateToken, PatchStatus, Ref, Tell
from dataset_controller.operator.planning.claims import plan_volume
from dataset_controller.operator.planning.dataset import plan_dataset
from dataset_controller.operator.planning.gates import is_gated, plan_pod, seconds_left
from dataset_controller.operator.planning.namespace import plan_namespace
from dataset_controller.operator.planning.operation import decide, plan_operation
from dataset_controller.operator.planning.owning import is_leaving
from dataset_controller.operator.planning.refusing import plan_invalid
from dataset_controller.operator.planning.runs import last_run
from dataset_controller.operator.planning.runtime import plan_runtime, scaling_of
from dataset_controller.operator.routing import NAMESPACE, POD, VOLUME, keys_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from dataset_controller.operator.api import ClusterApi
    from dataset_controller.operator.metrics import Metrics
    from dataset_controller.operator.mirror import Document, Mirror
    from dataset_controller.operator.queueing import Key, WorkQueue

_log = logging.getLogger(__name__)
_TAKE_SECONDS = 1.0
_LOOK_AGAIN_SECONDS = 600.0
"""Everything is looked at so often even if nothing changed; it asks the server nothing unless something is wrong."""
_REFUSALS = (400, 403, 405, 409, 413, 422)
_SPARE_SECONDS = 0.1


class RefusedError(Exception):
    """An object cannot be as it should; the message says why, and what to do."""


class Reconciler:
    """Looks at objects; any number of threads, each object in one at a time.

    Args:
        api: Does what plans say.
        mirror: Of the cluster.
        observer: Reads it.
        queue: What is to be looked at.
        metrics: Counts.
        may_act: Says whether this operator is the one that acts.
    """

    def __init__(
        self,
        api: ClusterApi,
        mirror: Mirror,
        observer: Observer,
        queue: WorkQueue,
        metrics: Metrics,
        may_act: Callable[[], bool],
    ) -> None:
        self._api = api
        self._mirror = mirror
        self._observer = observer
        self._queue = queue
        self._metrics = metrics
        self._may_act = may_act
        self._refusals: dict[Key, str] = {}

    def changed(self, before: Document | None, after: Document | None) -> None:
        """Note that an object changed: called by watches."""
        if after is None and before is not None and is_ours(before):
            self._observer.forget(before["metadata"]["uid"])
        if self._may_act():
            self._queue.add_all(keys_of(self._mirror, before, after))

    def work(self) -> None:
        """Look at one object, if one is due within a second."""
        key = self._queue.take(_TAKE_SECONDS)
        if key is None:
            return
        begun = time.monotonic()
        try:
            again = self._reconcile(key) if self._may_act() else None
        except Exception as error:  # noqa: BLE001 - whatever one object does to us, the others go on
            result = "refused" if isinstance(error, RefusedError) else "failed"
            _log_failure(key, error, self._queue.failed(key))
        else:
            result = "done"
            self._queue.done(key, again=again)
        self._metrics.reconciled.labels(key.kind, result).inc()
        self._metrics.seconds.labels(key.kind).observe(time.monotonic() - begun)

    def _reconcile(self, key: Key) -> float | None:
        """Look at an object, and return in how many seconds to look again; None if it is gone.

        Raises:
            RefusedError: If something cannot be done; its condition says so.
        """
        owner = None
        if key.kind != NAMESPACE:
            owner = self._mirror.get(Ref("v1" if key.kind in (POD, VOLUME) else API_VERSION, *key))
            if owner is None or is_leaving(owner) or (key.kind == POD and not is_gated(owner)):
                self._refusals.pop(key, None)
                return None  # what it owns goes with it
        refusal: RefusedError | None = None
        actions, wake = self._planned(key, owner)
        try:
            for action in actions:
                self._do(action, owner)
            if self._refusals.pop(key, None) is not None:
                actions, wake = self._planned(key, owner and self._mirror.get(Ref.of(owner)))
                self._tell(actions, owner)
        except RefusedError as error:
            refusal = error
            is_news = self._refusals.get(key) != str(error)
            self._refusals[key] = str(error)
            if is_news and owner is not None and is_ours(owner):
                self._tell(self._planned(key, self._mirror.get(Ref.of(owner)) or owner)[0], owner)
        if refusal is not None:
            raise refusal
        return min(_LOOK_AGAIN_SECONDS, wake)

    def _planned(self, key: Key, owner: Document | None) -> tuple[list[Action], float]:
        """Return what is to be done, and in how many seconds there may be more."""
        now = datetime.now(UTC)
        if owner is None:
            return plan_namespace(self._observer.namespace(key.name)), _LOOK_AGAIN_SECONDS
        refusal = self._refusals.get(key)
        if key.kind == POD:
            pod = self._observer.pod(owner)
            return plan_pod(pod, now), seconds_left(pod, now) + _SPARE_SECONDS
        if key.kind == VOLUME:
            return plan_volume(owner, is_owned=self._observer.has_owner(owner)), _LOOK_AGAIN_SECONDS
        try:
            if key.kind == "CacheRuntime":
                runtime = self._observer.runtime(owner, refusal)
                scaling = scaling_of(runtime, now)
                return plan_runtime(runtime, now), _until(scaling.until if scaling else None, now)
            if key.kind == "Dataset":
                return plan_dataset(self._observer.dataset(owner, refusal), now), _LOOK_AGAIN_SECONDS
            assert key.kind in OPERATIONS
            operation = self._observer.operation(owner, refusal)
            return plan_operation(operation, now), _until(decide(operation, last_run(operation), now).next_time, now)
        except (InvalidSpecError, ValueError) as error:
            return plan_invalid(owner, "Invalid", str(error), now), _LOOK_AGAIN_SECONDS

    def _tell(self, actions: list[Action], owner: Document | None) -> None:
        """Do of a plan what only tells."""
        for action in actions:
            if isinstance(action, PatchStatus | Tell):
                self._do(action, owner)

    def _do(self, action: Action, owner: Document | None) -> None:
        """Do one action, and note in the mirror what became of it: the next plan need not wait for a watch.

        Raises:
            RefusedError: If the server will not, whenever it is asked.
        """
        from kubernetes.client import ApiException

        found = None
        if isinstance(action, Apply):
            self._check_name(action, owner)
        try:
            found = self._api.do(action, owner["metadata"]["uid"] if owner else "")
        except ApiException as error:
            if error.status in _REFUSALS and not isinstance(action, Tell | PatchStatus):
                raise RefusedError(_refusal(action, error)) from error
            if not isinstance(action, Tell):
                raise
            _log.warning("event not written object=%s: %s", _text(action), error.reason)  # the status tells, too
        if found is not None:
            before = self._mirror.put(found)
            self._changed_by_us(before, found)
        if isinstance(action, CreateToken) and owner is not None:
            self._observer.token_made(owner["metadata"]["uid"])
        self._metrics.actions.labels(type(action).__name__).inc()
        if not isinstance(action, PatchStatus | Tell):
            _log.info("did action=%s object=%s", type(action).__name__, _text(action))

    def _changed_by_us(self, before: Document | None, found: Document) -> None:
        """Let others know that an object is another one now; its watch will find nothing new."""
        after = self._mirror.get(Ref.of(found))
        if is_ours(found) and after is not before:
            self._queue.add_all(keys_of(self._mirror, before, after))

    def _check_name(self, action: Apply, owner: Document | None) -> None:
        """Take no object that somebody else made.

        Raises:
            RefusedError: If there is one of this name.
        """
        ref = Ref.of(action.document)
        there = self._mirror.get(ref) or self._api.get(ref)
        if there is None:
            return
        labels = there["metadata"].get("labels") or {}
        if owner is None and labels.get("app.kubernetes.io/managed-by") == MANAGER:
            return
        if owner is not None and labels.get(OWNER_UID) == owner["metadata"]["uid"]:
            return
        if labels.get(OWNER_UID):
            raise RefusedError(f"{ref.kind} {ref.name} is still there for another object, which is being deleted")
        raise RefusedError(
            f"there is a {ref.kind} {ref.name} already that Forebay did not make: delete it, or name yours otherwise"
        )


def _refusal(action: Action, error: Any) -> str:
    """Return the server's words about what it refused."""
    try:
        said = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        said = str(error.reason)
    return f"the server refused {_text(action)}: {said}"


def _text(action: Action) -> str:
    ref = Ref.of(action.document) if isinstance(action, Apply | CreateToken) else action.ref
    return f"{ref.kind} {ref.namespace}/{ref.name}"


def _until(moment: datetime | None, now: datetime) -> float:
    if moment is None:
        return _LOOK_AGAIN_SECONDS
    return max((moment - now).total_seconds(), 0.0) + _SPARE_SECONDS


def _log_failure(key: Key, error: Exception, seconds: float) -> None:
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    name = f"{key.kind} {key.namespace}/{key.name}"
    if isinstance(error, RefusedError):
        _log.warning("refused object=%s again_in=%.1fs: %s", name, seconds, error)
    elif isinstance(error, ApiException | HTTPError | OSError):
        _log.warning("not done object=%s again_in=%.1fs: %s", name, seconds, getattr(error, "reason", None) or error)
    else:
        _log.error("not done object=%s again_in=%.1fs", name, seconds, exc_info=error)
