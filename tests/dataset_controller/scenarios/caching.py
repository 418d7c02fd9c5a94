"""What the scenarios declare and look at: a cache, a dataset of several sources, a load, a job that reads it all."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sources import open_store
from tests.dataset_controller.scenarios.people import eventually

if TYPE_CHECKING:
    from tests.dataset_controller.scenarios.people import People

API = "forebay.dev/v1alpha1"
CONTROLLER = "app.kubernetes.io/component=controller"
HOME = "forebay-system"
_READER = """
import hashlib, ds
files = ds.Dataset("{dataset}").filesystem("main")
content = hashlib.sha256()
for name in sorted(files.find("")):
    content.update(name.strip("/").encode() + b" " + hashlib.sha256(files.cat_file(name)).digest())
print("read", content.hexdigest())
"""


@dataclass
class Story:
    """A dataset with its cache.

    Attributes:
        us: Who tells it.
        name: Of the dataset; its cache is `<name>-cache`, its load `<name>-load`.
        mounts: Its sources.
        content: What is in them, by path.
        interval: At which the sources are looked at.
        retries: Of the load.
    """

    us: People
    name: str
    mounts: list[dict[str, Any]] = field(default_factory=list)
    content: dict[str, bytes] = field(default_factory=dict)
    interval: str = "2s"
    retries: int = 3
    _jobs: int = 0

    @property
    def cache(self) -> str:
        """The CacheRuntime."""
        return f"{self.name}-cache"

    @property
    def load(self) -> str:
        """The DataLoad."""
        return f"{self.name}-load"

    @property
    def labels(self) -> str:
        """Of the pods of its workers."""
        return f"forebay.dev/runtime={self.cache}"

    def apply(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        """Apply an object."""
        document = {"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec}
        self.us.kubectl("apply", "-f", "-", given=json.dumps(document))

    def declare(self, *, replicas: int = 2, **cache: Any) -> None:
        """Apply the cache and the dataset, with the keys of the bucket."""
        us = self.us
        keys = {"key": us.s3.key, "secret": us.s3.secret}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"{self.name}-s3"}, "stringData": keys}
        us.kubectl("apply", "-f", "-", given=json.dumps(secret))
        self.declare_cache(replicas=replicas, **cache)
        repo = {"uri": f"s3://versions/{self.name}", **self.in_bucket(us.s3.endpoint)}
        use = {"runtimeRef": {"name": self.cache}}
        spec = {"mounts": self.mounts, "repo": repo, "sync": {"interval": self.interval}, "cache": use}
        self.apply("Dataset", self.name, spec)

    def declare_cache(self, *, replicas: int = 2, **cache: Any) -> None:
        """Apply the cache."""
        tiers = [{"path": f"/var/cache/{self.name}", "capacity": "512Mi"}]
        self.apply("CacheRuntime", self.cache, {"replicas": replicas, "tiers": tiers, "drainTimeout": "60s", **cache})

    def in_bucket(self, endpoint: str) -> dict[str, Any]:
        """Return how a place in a bucket is reached."""
        return {"options": {"endpoint_url": endpoint}, "secretRef": {"name": f"{self.name}-s3"}}

    def put(self, mount: str, path: str, data: bytes) -> None:
        """Put a file into a source."""
        place = next(each for each in self.mounts if each["name"] == mount)
        options = dict(place.get("options") or {})
        if "secretRef" in place:
            options |= {"key": self.us.s3.key, "secret": self.us.s3.secret}
        open_store(place["uri"].split("/", 3)[0] + "//" + place["uri"].split("/", 3)[2], options).put(
            f"{place['uri'].split('/', 3)[3]}/{path}", data
        )
        self.content[f"{place['path']}{path}"] = data

    def wait_for_files(self) -> None:
        """Wait until all files are in a version."""
        count = len(self.content)
        eventually(lambda: self.us.status("dset", self.name).get("files") == count, f"{count} files are a version")

    def warm(self) -> None:
        """Load the version into the workers."""
        self.declare_load()
        eventually(lambda: self.us.status("load", self.load).get("phase") == "Succeeded", "everything is loaded")

    def declare_load(self) -> None:
        """Apply the load."""
        self.apply("DataLoad", self.load, {"dataset": {"name": self.name}, "retries": self.retries})

    def wait_for_workers(self, count: int) -> list[dict[str, Any]]:
        """Wait until the cache has so many workers, all ready, and return their pods."""

        def ready() -> list[dict[str, Any]]:
            status = self.us.status("cache", self.cache)
            pods = self.us.pods(self.labels)
            is_so = status.get("readyReplicas") == status.get("replicas") == count == len(pods)
            return pods if is_so else []

        eventually(ready, f"{count} workers are ready")
        return self.us.pods(self.labels)

    def scale(self, count: int) -> None:
        """Let the cache have so many workers, and wait until it is so."""
        self.us.kubectl("scale", "cache", self.cache, f"--replicas={count}")
        self.wait_for_workers(count)

    def read(self) -> None:
        """Read everything in a job, as training does, and compare it."""
        self._jobs += 1
        name = f"{self.name}-read-{self._jobs}"
        self.us.kubectl("apply", "-f", "-", given=json.dumps(self._job(name)))
        try:
            eventually(lambda: _is_over(self.us.status("job", name)), f"job {name} ended", 120)
            (pod,) = self.us.pods(f"job-name={name}")
            (log,) = self.us.directory.glob(f"nodes/*/pods/{pod['metadata']['uid']}/logs/read.log")
            assert log.read_text().splitlines()[-1:] == [f"read {self._digest()}"], log.read_text()[-2000:]
        finally:
            self.us.kubectl("delete", "job", name)

    def delete(self) -> None:
        """Delete everything, and see that nothing is left."""
        for kind, name in (("load", self.load), ("dset", self.name), ("cache", self.cache)):
            self.us.kubectl("delete", kind, name, "--ignore-not-found")
        self.us.kubectl("delete", "secret", f"{self.name}-s3")
        eventually(lambda: not self.us.left(), f"nothing is left, found {self.us.left()}")

    def _digest(self) -> str:
        content = hashlib.sha256()
        for path, data in sorted(self.content.items()):
            content.update(path.encode() + b" " + hashlib.sha256(data).digest())
        return content.hexdigest()

    def _job(self, name: str) -> dict[str, Any]:
        places: dict[str, tuple[str, dict[str, Any]]] = {
            "home": ("/var/lib/forebay", {"emptyDir": {}}),
            "s3": (f"/var/lib/forebay/secrets/{self.name}-s3", {"secret": {"secretName": f"{self.name}-s3"}}),
            "manifests": ("/etc/forebay/manifests", {"configMap": {"name": f"{self.cache}-workers"}}),
            "token": ("/etc/forebay/token", {"secret": {"secretName": f"{self.cache}-token"}}),
        }
        variables = {
            "FOREBAY_HOME": "/var/lib/forebay",
            "FOREBAY_MANIFESTS": "/etc/forebay/manifests",
            "FOREBAY_WORKER_TOKEN_FILE": "/etc/forebay/token/token",
        }
        container = {
            "name": "read",
            "image": "forebay",
            "command": ["python", "-c", _READER.format(dataset=self.name)],
            "env": [{"name": key, "value": value} for key, value in variables.items()],
            "volumeMounts": [{"name": each, "mountPath": path} for each, (path, _) in places.items()],
        }
        pod = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "containers": [container],
            "volumes": [{"name": each, **volume} for each, (_, volume) in places.items()],
        }
        spec = {"backoffLimit": 0, "template": {"spec": pod}}
        return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


def _is_over(status: dict[str, Any]) -> bool:
    return bool(status.get("succeeded") or status.get("failed"))
