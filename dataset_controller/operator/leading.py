"""One of several operators acts: the one that holds a lease."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from dataset_controller.operator.api import ClusterApi

_log = logging.getLogger(__name__)
_LEASE_SECONDS = 15
_RENEW_SECONDS = 5.0
_GIVE_UP_SECONDS = 10.0
"""Who could not renew for so long acts no more: before anybody else may begin."""
_NOT_FOUND, _CONFLICT = 404, 409


class Lease:
    """A lease of the cluster, as every client of Kubernetes uses them: times are never compared between machines.

    Args:
        api: With the right to get, create and update it.
        namespace: Where it is.
        name: Its name.
        holder: Who we are; different for each process.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        api: ClusterApi,
        namespace: str,
        name: str,
        holder: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._name = name
        self._holder = holder
        self._clock = clock
        self._seen: tuple[Any, Any] | None = None
        self._seen_at = 0.0
        self._renewed_at = float("-inf")
        self._document: dict[str, Any] | None = None

    @property
    def is_held(self) -> bool:
        """Whether we may act."""
        return self._clock() - self._renewed_at < _GIVE_UP_SECONDS

    def keep(self, stopping: threading.Event, on_change: Callable[[bool], None]) -> None:
        """Get and renew it until told to stop, then give it back.

        Args:
            stopping: Says when.
            on_change: Called when we begin and when we cease to hold it.
        """
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        held = False
        while not stopping.is_set():
            try:
                self.step()
            except (ApiException, HTTPError, OSError) as error:
                self.lost()
                if getattr(error, "status", None) != _CONFLICT:
                    _log.warning("lease not renewed name=%s trouble=%s", self._name, error)
            if held != self.is_held:
                held = self.is_held
                _log.info("%s name=%s holder=%s", "leads" if held else "leads no more", self._name, self._holder)
                on_change(held)
            stopping.wait(_RENEW_SECONDS if held and self._document is not None else 1.0)
        if held:
            on_change(False)
            with suppress(ApiException, HTTPError, OSError):  # it ends by itself
                self._write("")

    def step(self) -> None:
        """Renew it, or take it if nobody renewed it for its time.

        Raises:
            kubernetes.client.ApiException: If the server cannot be asked, or somebody else was faster.
        """
        from kubernetes.client import ApiException

        if self.is_held and self._document is not None:
            self._write(self._holder)  # nobody else wrote it since, or this fails
            return
        try:
            self._document = self._api.ask("GET", f"{self._collection}/{self._name}")
        except ApiException as error:
            if error.status != _NOT_FOUND:
                raise
            self._document = {
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": self._name},
            }  # fmt: skip
        spec = self._document.get("spec") or {}
        seen = (spec.get("holderIdentity"), spec.get("renewTime"))
        if seen != self._seen:
            self._seen, self._seen_at = seen, self._clock()
        is_free = not spec.get("holderIdentity") or spec.get("holderIdentity") == self._holder
        if is_free or self._clock() - self._seen_at > float(spec.get("leaseDurationSeconds") or _LEASE_SECONDS):
            self._write(self._holder)
        else:
            self._renewed_at = float("-inf")

    def lost(self) -> None:
        """Read it again before it is written: it is not known any more."""
        self._document = None

    def _write(self, holder: str) -> None:
        assert self._document is not None
        begun = self._clock()
        before = self._document.get("spec") or {}
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec: dict[str, Any] = {**before, "holderIdentity": holder, "renewTime": now}
        spec["leaseDurationSeconds"] = _LEASE_SECONDS
        if before.get("holderIdentity") != holder:
            spec.update(acquireTime=now, leaseTransitions=int(before.get("leaseTransitions") or 0) + 1)
        document = {**self._document, "spec": spec}
        is_new = "uid" not in document["metadata"]
        place = self._collection if is_new else f"{self._collection}/{self._name}"
        self._document = self._api.ask("POST" if is_new else "PUT", place, document)
        self._renewed_at = begun
