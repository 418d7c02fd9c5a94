"""Does what a plan says, through the official client."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

from dataset_controller.operator.events import EventWriter
from dataset_controller.operator.naming import MANAGER
from dataset_controller.operator.planning.actions import (
    Action,
    Apply,
    CreateToken,
    Delete,
    OpenGate,
    PatchStatus,
    Ref,
    SetReplicas,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kubernetes.client import ApiClient

_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_STRATEGIC = "application/strategic-merge-patch+json"
_TOKEN_BYTES = 32
_SECONDS = 30
_PART_BYTES = 1 << 16
_GONE, _THERE = 404, 409
_PLURALS = {
    "ConfigMap": "configmaps",
    "CronJob": "cronjobs",
    "Deployment": "deployments",
    "Job": "jobs",
    "PersistentVolume": "persistentvolumes",
    "PersistentVolumeClaim": "persistentvolumeclaims",
    "Pod": "pods",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "Secret": "secrets",
    "Service": "services",
    "ServiceAccount": "serviceaccounts",
    "StatefulSet": "statefulsets",
}
"""Of the kinds that are not ours."""


def path_of(ref: Ref) -> str:
    """Return where an object is on the API server."""
    from dataset_controller.crds import GROUP, plural_of

    group = ref.api_version.rpartition("/")[0]
    plural = plural_of(ref.kind) if group == GROUP else _PLURALS[ref.kind]
    top = f"/apis/{ref.api_version}" if group else f"/api/{ref.api_version}"
    place = f"{top}/namespaces/{ref.namespace}" if ref.namespace else top
    return f"{place}/{plural}/{ref.name}"


class ClusterApi:
    """The API server, for what plans consist of; any number of threads.

    Each call may be done again: what is done already stays done.

    Args:
        client: With the operator's rights.
        manager: Whose fields they are.
        on_answer: Called with the method and the status of each answer.
    """

    def __init__(
        self, client: ApiClient, manager: str = MANAGER, on_answer: Callable[[str, int], None] | None = None
    ) -> None:
        self._client: Any = client
        self._manager = manager
        self._on_answer = on_answer
        self._events = EventWriter(self, manager)

    def do(self, action: Action, uid: str = "") -> dict[str, Any] | None:
        """Do one action.

        Args:
            action: What to do.
            uid: Of the object that an event is about.

        Returns:
            What the object of the action became, if the server says it.

        Raises:
            kubernetes.client.ApiException: If the server refuses it or cannot be asked.
        """
        if isinstance(action, Apply):
            return self.apply(action.document)
        if isinstance(action, PatchStatus):
            return self.apply_status(action.ref, action.status)
        if isinstance(action, CreateToken):
            self._create_token(action.document)
        elif isinstance(action, Delete):
            self._delete(action)
        elif isinstance(action, SetReplicas):
            self._patch(f"{path_of(action.ref)}/scale", {"spec": {"replicas": action.replicas}}, _MERGE)
        elif isinstance(action, OpenGate):
            return self._open_gate(action)
        else:
            self._events.write(action, uid)
        return None

    def apply(self, document: dict[str, Any]) -> dict[str, Any]:
        """Apply an object on the server's side; fields of ours that somebody else set become ours again."""
        return self._patch(path_of(Ref.of(document)), document, _APPLY, self._applying())

    def apply_status(self, ref: Ref, status: dict[str, Any]) -> dict[str, Any] | None:
        """Tell our part of a status; what is None is forgotten; an object that is gone needs none."""
        metadata = {"name": ref.name, "namespace": ref.namespace}
        told = {key: value for key, value in status.items() if value is not None}
        body = {"apiVersion": ref.api_version, "kind": ref.kind, "metadata": metadata, "status": told}
        found: dict[str, Any] | None = self._unless(
            _GONE, lambda: self._patch(f"{path_of(ref)}/status", body, _APPLY, self._applying())
        )
        return found

    def ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        query: list[tuple[str, str]] | None = None,
        merges: bool = False,
    ) -> dict[str, Any]:
        """Ask the server for anything, and return its document.

        Raises:
            kubernetes.client.ApiException: If the server refuses it or cannot be asked.
        """
        return self._call(method, path, body, query, _MERGE if merges else "application/json")

    def lines(self, path: str, query: list[tuple[str, str]], seconds: float) -> Iterator[bytes]:
        """Yield the lines of an answer that goes on, such as that of a watch.

        Raises:
            kubernetes.client.ApiException: If the server refuses it or cannot be asked.
            urllib3.exceptions.HTTPError: If the connection breaks.
        """
        answer = self._answer("GET", path, None, query, "application/json", seconds)
        try:
            rest = b""
            for part in answer.response.stream(_PART_BYTES, decode_content=False):
                *whole, rest = (rest + part).split(b"\n")
                yield from whole
        finally:
            answer.response.close()

    def get(self, ref: Ref) -> dict[str, Any] | None:
        """Read an object; None if there is none."""
        found: dict[str, Any] | None = self._unless(_GONE, lambda: self._call("GET", path_of(ref)))
        return found

    def _create_token(self, document: dict[str, Any]) -> None:
        body = {**document, "stringData": {"token": secrets.token_urlsafe(_TOKEN_BYTES)}}
        collection = path_of(Ref.of(document)).rpartition("/")[0]
        self._unless(_THERE, lambda: self._call("POST", collection, body))

    def _delete(self, action: Delete) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": action.uid},
        }
        # gone, or another one of its name
        self._unless(_GONE, lambda: self._unless(_THERE, lambda: self._call("DELETE", path_of(action.ref), body)))

    def _open_gate(self, action: OpenGate) -> dict[str, Any] | None:
        gate = {"$patch": "delete", "name": action.gate}
        body = {"metadata": {"uid": action.uid}, "spec": {"schedulingGates": [gate]}}  # another uid is a conflict
        found: dict[str, Any] | None = self._unless(_GONE, lambda: self._patch(path_of(action.ref), body, _STRATEGIC))
        return found

    def _applying(self) -> list[tuple[str, str]]:
        return [("fieldManager", self._manager), ("force", "true")]

    def _patch(
        self, path: str, body: dict[str, Any], content_type: str, query: list[tuple[str, str]] | None = None
    ) -> dict[str, Any]:
        return self._call("PATCH", path, body, query or [("fieldManager", self._manager)], content_type)

    @staticmethod
    def _unless(status: int, call: Any) -> Any:
        """Return what a call returns, None if the server answers it with this status."""
        from kubernetes.client import ApiException

        try:
            return call()
        except ApiException as error:
            if error.status == status:
                return None
            raise

    def _call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        query: list[tuple[str, str]] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        """Ask the server, and return its document. The client's own methods each know one kind only."""
        answer = self._answer(method, path, body, query or [], content_type, _SECONDS)
        document: dict[str, Any] = json.loads(answer.data)
        return document

    def _answer(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        query: list[tuple[str, str]],
        content_type: str,
        seconds: float,
    ) -> Any:
        """Return an answer that says yes; it is read already unless it is one of a watch."""
        from kubernetes.client import ApiException

        headers = {"Accept": "application/json", "Content-Type": content_type}
        asked = self._client.param_serialize(
            method=method,
            resource_path=path,
            query_params=query,
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        answer = self._client.call_api(*asked, _request_timeout=seconds)
        if self._on_answer is not None:
            self._on_answer(method, answer.status)
        is_good = 200 <= answer.status <= 299
        if not is_good or ("watch", "true") not in query:
            answer.read()
        if not is_good:
            raise ApiException.from_response(http_resp=answer, body=answer.data.decode(errors="replace"), data=None)
        return answer
