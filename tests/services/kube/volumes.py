"""What a pod mounts: its volumes as directories of this machine."""

from __future__ import annotations

import base64
import os
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_TOKEN_SECONDS = 3600


class Mount(NamedTuple):
    """One directory or file that a container sees.

    Attributes:
        source: On this machine.
        target: In the container.
        read_only: As it says.
    """

    source: str
    target: str
    read_only: bool


class Volumes:
    """The volumes of one pod.

    Args:
        api: Asked as the node that the pod is bound to.
        pod: As the API server says it, in plain data.
        directory: For what lives as long as the pod.
        host: Stands for the root of the node's own disk.
    """

    def __init__(self, api: Any, pod: dict[str, Any], directory: Path, host: Path) -> None:
        self._api = api
        self._pod = pod
        self._namespace: str = pod["metadata"]["namespace"]
        self._directory = directory
        self._host = host
        self._paths: dict[str, Path] = {}

    def prepare(self) -> None:
        """Make the directories, and write what they hold.

        Raises:
            ApiException: If a secret or config map is not there (yet).
        """
        group = (self._pod["spec"].get("securityContext") or {}).get("fsGroup")
        for volume in self._pod["spec"].get("volumes") or []:
            path = self._prepare(volume)
            self._paths[volume["name"]] = path
            if group is not None and "emptyDir" in volume:
                os.chown(path, -1, group)
                path.chmod(0o2775)

    def refresh(self) -> None:
        """Write config maps and secrets anew, as a kubelet does now and then."""
        for volume in self._pod["spec"].get("volumes") or []:
            if not {"emptyDir", "hostPath"} & volume.keys():
                self._prepare(volume)

    def mounts(self, container: Mapping[str, Any]) -> list[Mount]:
        """Return what a container mounts, outer directories first."""
        found = []
        for mount in container.get("volumeMounts") or []:
            source = self._paths[mount["name"]]
            sub_path = mount.get("subPath")
            if sub_path:
                source = source / sub_path
                source.mkdir(parents=True, exist_ok=True) if not source.exists() else None
            found.append(Mount(str(source), mount["mountPath"], bool(mount.get("readOnly"))))
        return sorted(found, key=lambda mount: mount.target)

    def _prepare(self, volume: Mapping[str, Any]) -> Path:
        path = self._directory / "volumes" / str(volume["name"])
        if "hostPath" in volume:
            path = self._host / str(volume["hostPath"]["path"]).lstrip("/")
            if volume["hostPath"].get("type") not in ("File", "Socket"):
                path.mkdir(parents=True, exist_ok=True)
            return path
        path.mkdir(parents=True, exist_ok=True)
        if "emptyDir" not in volume:
            self._write(path, self._files(volume))
        return path

    def _files(self, volume: Mapping[str, Any]) -> dict[str, bytes]:
        """Return the files of a volume that holds data of the cluster, or of a source of a projected one."""
        if "projected" in volume:
            files: dict[str, bytes] = {}
            for source in volume["projected"]["sources"]:
                files.update(self._files(source))
            return files
        if "configMap" in volume:
            source = volume["configMap"]
            return self._picked(source, lambda: self._config_map(source["name"]))
        if "secret" in volume:
            source = volume["secret"]
            return self._picked(source, lambda: self._secret(source.get("secretName") or source["name"]))
        if "serviceAccountToken" in volume:
            source = volume["serviceAccountToken"]
            return {source["path"]: self._token(source.get("audience")).encode()}
        if "downwardAPI" in volume:
            fields = volume["downwardAPI"]["items"]
            return {each["path"]: _field(self._pod, each["fieldRef"]["fieldPath"]).encode() for each in fields}
        raise NotImplementedError(f"this kubelet knows no volume {dict(volume)}")

    def _picked(self, source: Mapping[str, Any], read: Any) -> dict[str, bytes]:
        from kubernetes.client import ApiException

        try:
            data = read()
        except ApiException as error:
            if error.status == 404 and source.get("optional"):
                return {}
            raise
        items = source.get("items")
        return {item["path"]: data[item["key"]] for item in items} if items else data

    def _config_map(self, name: str) -> dict[str, bytes]:
        found = self._api.read_namespaced_config_map(name, self._namespace)
        return {key: text.encode() for key, text in (found.data or {}).items()}

    def _secret(self, name: str) -> dict[str, bytes]:
        found = self._api.read_namespaced_secret(name, self._namespace)
        return {key: base64.b64decode(text) for key, text in (found.data or {}).items()}

    def _token(self, audience: str | None) -> str:
        spec: dict[str, Any] = {
            "expirationSeconds": _TOKEN_SECONDS,
            "boundObjectRef": {
                "kind": "Pod", "apiVersion": "v1",
                "name": self._pod["metadata"]["name"], "uid": self._pod["metadata"]["uid"],
            },
        }  # fmt: skip
        if audience:
            spec["audiences"] = [audience]
        account = self._pod["spec"].get("serviceAccountName") or "default"
        asked = self._api.create_namespaced_service_account_token(account, self._namespace, {"spec": spec})
        return str(asked.status.token)

    @staticmethod
    def _write(path: Path, files: Mapping[str, bytes]) -> None:
        """Write files so that a reader sees whole ones."""
        for name, data in files.items():
            file = path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.exists() or file.read_bytes() != data:
                part = file.with_name(f".{file.name}.part")
                part.write_bytes(data)
                part.rename(file)
        for file in path.iterdir():
            if file.is_file() and file.name not in files:
                file.unlink()
            elif file.is_dir() and not any(name.startswith(f"{file.name}/") for name in files):
                shutil.rmtree(file)


def environment_of(api: Any, pod: Mapping[str, Any], container: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that a container declares.

    Raises:
        ApiException: If a secret or config map is not there (yet).
    """
    import re

    namespace = pod["metadata"]["namespace"]

    def config_map(name: str) -> dict[str, str]:
        return dict(api.read_namespaced_config_map(name, namespace).data or {})

    def secret(name: str) -> dict[str, str]:
        data = api.read_namespaced_secret(name, namespace).data or {}
        return {key: base64.b64decode(text).decode() for key, text in data.items()}

    found: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        reader, reference = (
            (config_map, source["configMapRef"]) if "configMapRef" in source else (secret, source["secretRef"])
        )
        prefix = source.get("prefix", "")
        found.update({prefix + key: value for key, value in reader(reference["name"]).items()})
    for variable in container.get("env") or []:
        origin = variable.get("valueFrom") or {}
        if "fieldRef" in origin:
            value = _field(pod, origin["fieldRef"]["fieldPath"])
        elif "configMapKeyRef" in origin:
            value = config_map(origin["configMapKeyRef"]["name"])[origin["configMapKeyRef"]["key"]]
        elif "secretKeyRef" in origin:
            value = secret(origin["secretKeyRef"]["name"])[origin["secretKeyRef"]["key"]]
        else:
            text = variable.get("value", "")
            value = re.sub(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)", lambda match: found.get(match[1], match[0]), text)
        found[variable["name"]] = value
    return found


def _field(pod: Mapping[str, Any], path: str) -> str:
    """Return what `metadata.name`, `status.podIP`, `metadata.labels['x']` and so on mean."""
    head, _, key = path.partition("['")
    value: Any = pod
    for step in head.split("."):
        value = value.get(step) or {}
    return str(value.get(key.rstrip("']"), "") if key else value or "")
