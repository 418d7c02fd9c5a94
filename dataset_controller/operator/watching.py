"""Keeps the mirror like the cluster: lists each kind, then watches it, and lists it again where the watch was lost."""

from __future__ import annotations

import json
import logging
import random
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dataset_controller.operator.planning.actions import Ref

if TYPE_CHECKING:
    from collections.abc import Callable

    from dataset_controller.operator.api import ClusterApi
    from dataset_controller.operator.mirror import Document, Mirror

_log = logging.getLogger(__name__)
_PAGE = "500"
_WATCH_SECONDS = 300
_SPARE_SECONDS = 30
"""A server that says nothing for so long after the end of a watch is gone."""
_RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_NOT_FOUND, _EXPIRED = 404, 410


@dataclass(frozen=True)
class Watched:
    """What is watched.

    Attributes:
        api_version: "apps/v1".
        kind: "StatefulSet".
        plural: "statefulsets".
        selector: Labels that it must have.
    """

    api_version: str
    kind: str
    plural: str
    selector: str = ""

    def path(self, namespace: str | None) -> str:
        """Return where its list is."""
        top = f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        return f"{top}/namespaces/{namespace}/{self.plural}" if namespace else f"{top}/{self.plural}"


class Watcher:
    """Watches one kind, in one namespace or all, in a thread of its own.

    Args:
        api: Asked with the right to list and watch it.
        mirror: Kept.
        watched: What is watched.
        namespace: None for all.
        on_change: Called with what an object was and is; None for what is not there.
    """

    def __init__(
        self,
        api: ClusterApi,
        mirror: Mirror,
        watched: Watched,
        namespace: str | None,
        on_change: Callable[[Document | None, Document | None], None],
    ) -> None:
        self._api = api
        self._mirror = mirror
        self._watched = watched
        self._namespace = namespace
        self._on_change = on_change
        self._failures = 0
        self.listed = threading.Event()
        """Whether the mirror has all that there was at some time."""
        self.trouble: str | None = None
        """What keeps it from being watched."""

    @property
    def kind(self) -> str:
        """Of what is watched."""
        return self._watched.kind

    def start(self, stopping: threading.Event) -> None:
        """Begin; ends some time after `stopping`, at the latest with the process."""
        threading.Thread(target=self._run, args=(stopping,), name=f"watch-{self._watched.plural}", daemon=True).start()

    def _run(self, stopping: threading.Event) -> None:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        version: str | None = None
        while not stopping.is_set():
            try:
                if version is None:
                    version = self._list()
                version = self._watch(version)
                self._failures = 0
            except (ApiException, HTTPError, OSError, ValueError) as error:
                if isinstance(error, ApiException) and error.status == _EXPIRED:
                    version = None
                self._wait(error, stopping)

    def _wait(self, error: Exception, stopping: threading.Event) -> None:
        seconds = _RETRY_SECONDS[min(self._failures, len(_RETRY_SECONDS) - 1)]
        self._failures += 1
        plural, status = self._watched.plural, getattr(error, "status", None)
        if status == _NOT_FOUND:
            self.trouble = f"the server does not know {plural}: apply Forebay's custom resource definitions"
        else:
            self.trouble = f"cannot watch {plural}: {getattr(error, 'reason', None) or error}"
        _log.log(
            logging.WARNING if self._failures in (1, len(_RETRY_SECONDS)) else logging.DEBUG,
            "watch lost kind=%s trouble=%s again_in=%.1fs", self._watched.kind, self.trouble, seconds,
        )  # fmt: skip
        stopping.wait(seconds * (0.5 + random.random() / 2))

    def _list(self) -> str:
        """Let the mirror be as the cluster, and return of which version that is."""
        path, token, listed = self._watched.path(self._namespace), "", set()
        while True:
            query = [*self._query(), ("limit", _PAGE), *([("continue", token)] if token else [])]
            answer = self._api.ask("GET", path, query=query)
            for item in answer["items"]:
                found = {**item, "apiVersion": self._watched.api_version, "kind": self._watched.kind}
                listed.add(Ref.of(found))
                self._note(found)
            token = answer["metadata"].get("continue") or ""
            if not token:
                break
        namespaces = None if self._namespace is None else {self._namespace}
        for gone in self._mirror.missing_from(self._watched.kind, namespaces, listed):
            self._lost(gone, for_good=False)
        self.listed.set()
        self.trouble = None
        return str(answer["metadata"]["resourceVersion"])

    def _watch(self, version: str) -> str:
        """Follow what changes, and return the version that was reached."""
        from kubernetes.client import ApiException

        query = [
            *self._query(),
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", version),
            ("timeoutSeconds", str(_WATCH_SECONDS - random.randrange(_WATCH_SECONDS // 4))),
        ]
        path = self._watched.path(self._namespace)
        for line in self._api.lines(path, query, _WATCH_SECONDS + _SPARE_SECONDS):
            if not line:
                continue
            event: dict[str, Any] = json.loads(line)
            kind, found = event["type"], event["object"]
            if kind == "ERROR":
                raise ApiException(status=int(found.get("code") or 500), reason=found.get("message"))
            version = found["metadata"]["resourceVersion"]
            self.trouble = None
            self._failures = 0
            if kind == "DELETED":
                self._lost(found)
            elif kind != "BOOKMARK":
                self._note(found)
        return version

    def _note(self, found: Document) -> None:
        before = self._mirror.put(found)
        self._on_change(before, self._mirror.get(Ref.of(found)))

    def _lost(self, found: Document, *, for_good: bool = True) -> None:
        before = self._mirror.drop(Ref.of(found), found["metadata"]["uid"], for_good=for_good)
        if before is not None:
            self._on_change(before, None)

    def _query(self) -> list[tuple[str, str]]:
        return [("labelSelector", self._watched.selector)] if self._watched.selector else []
