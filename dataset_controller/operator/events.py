"""Events, as `kubectl describe` shows them below an object."""

from __future__ import annotations

import threading
from collections import OrderedDict
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol

from dataset_controller.operator.naming import fitting

if TYPE_CHECKING:
    from dataset_controller.operator.planning.actions import Tell

_GONE, _THERE = 404, 409
_MOST_REMEMBERED = 4096
_MOST_NAME = 200
_MOST_MESSAGE = 1024
_HASH_DIGITS = 16


class Asking(Protocol):
    """Asks the API server; see `ClusterApi.ask`."""

    def ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, merges: bool = False
    ) -> dict[str, Any]:
        """Ask it."""


class EventWriter:
    """Writes events; one that is repeated is counted. Any number of threads.

    Args:
        api: With the right to create and patch events.
        component: Who tells.
    """

    def __init__(self, api: Asking, component: str) -> None:
        self._api = api
        self._component = component
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def write(self, event: Tell, uid: str) -> None:
        """Write an event, or count it.

        Raises:
            kubernetes.client.ApiException: If the server refuses it or cannot be asked.
        """
        from kubernetes.client import ApiException

        name = self._name(event, uid)
        path = f"/api/v1/namespaces/{event.ref.namespace}/events"
        with self._lock:
            count = self._counts.get(name, 0)
        try:
            if count:
                self._count(f"{path}/{name}", count + 1)
            else:
                self._api.ask("POST", path, self._document(event, name, uid))
        except ApiException as error:
            if error.status == _GONE and count:  # events live for an hour
                self._api.ask("POST", path, self._document(event, name, uid))
                count = 0
            elif error.status == _THERE and not count:  # of an operator before this one
                count = int(self._api.ask("GET", f"{path}/{name}").get("count") or 1)
                self._count(f"{path}/{name}", count + 1)
            else:
                raise
        with self._lock:
            self._counts[name] = count + 1
            if len(self._counts) > _MOST_REMEMBERED:
                self._counts.popitem(last=False)

    def _count(self, path: str, count: int) -> None:
        self._api.ask("PATCH", path, {"count": count, "lastTimestamp": _now()}, merges=True)

    @staticmethod
    def _name(event: Tell, uid: str) -> str:
        text = "\n".join((event.ref.kind, uid, event.reason, event.message))
        return f"{fitting(event.ref.name, most=_MOST_NAME)}.{sha256(text.encode()).hexdigest()[:_HASH_DIGITS]}"

    def _document(self, event: Tell, name: str, uid: str) -> dict[str, Any]:
        now, ref = _now(), event.ref
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": ref.namespace},
            "involvedObject": {
                "apiVersion": ref.api_version, "kind": ref.kind,
                "namespace": ref.namespace, "name": ref.name, "uid": uid,
            },
            "reason": event.reason,
            "message": event.message[:_MOST_MESSAGE],
            "type": "Warning" if event.is_warning else "Normal",
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
        }  # fmt: skip


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
