"""One YAML, twice: applied to a cluster whose pods run, and to a laptop. Both tell the same."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from ds.application import run
from ds.operations.showing import document_of, kind_and_name
from ds.settings import current_settings
from sources import open_store
from tests.dataset_controller.operator.acting import Admin, eventually, operator
from tests.services.kube import missing
from tests.services.kube.cluster import cluster
from tests.services.kube.kubelet import node
from tests.services.requiring import require
from tests.services.weed import s3_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.services.weed import S3Server

pytest.importorskip("kubernetes")
pytestmark = pytest.mark.kube
NAMESPACE = "default"
UPPER = (
    "import os, pathlib; i, o = (pathlib.Path(os.environ[f'FOREBAY_{n}']) for n in ('INPUT', 'OUTPUT'));"
    "[(o / p.name).write_bytes(p.read_bytes().upper()) for p in i.rglob('*.txt')]"
)
DECLARED = """
apiVersion: forebay.dev/v1alpha1
kind: CacheRuntime
metadata: {name: nvme}
spec:
  tiers: [{path: "${CACHE}", capacity: 64Mi}]
---
apiVersion: forebay.dev/v1alpha1
kind: Dataset
metadata: {name: texts}
spec:
  mounts: [{name: raw, uri: s3://raw/texts, path: raw, options: {endpoint_url: "${S3}"}, secretRef: {name: s3}}]
  repo: {uri: "s3://repos/${WHERE}", options: {endpoint_url: "${S3}"}, secretRef: {name: s3}}
  cache: {runtimeRef: {name: nvme}}
"""
OPERATIONS = """
apiVersion: forebay.dev/v1alpha1
kind: DataLoad
metadata: {name: warm}
spec: {dataset: {name: texts}, include: ["raw/0*"]}
---
apiVersion: forebay.dev/v1alpha1
kind: DataPack
metadata: {name: shards}
spec: {dataset: {name: texts}, branch: packed, shardSize: 1Mi, runAfter: [{kind: DataLoad, name: warm}]}
---
apiVersion: forebay.dev/v1alpha1
kind: DataProcess
metadata: {name: upper}
spec:
  dataset: {name: texts}
  branch: upper
  output: upper
  template: {spec: {containers: [{name: work, image: any, command: ["${PYTHON}", -c, "${UPPER}"]}]}}
---
apiVersion: forebay.dev/v1alpha1
kind: DataMigrate
metadata: {name: out}
spec:
  source: {dataset: {name: texts}, path: raw}
  target: {uri: "s3://repos/copied", options: {endpoint_url: "${S3}"}, secretRef: {name: s3}}
---
apiVersion: forebay.dev/v1alpha1
kind: DataLoad
metadata: {name: lost}
spec: {dataset: {name: nowhere}}
---
apiVersion: forebay.dev/v1alpha1
kind: DataPack
metadata: {name: circle}
spec: {dataset: {name: texts}, branch: other, runAfter: [{kind: DataPack, name: circle}]}
"""
NAMES = ("dset/texts", "load/warm", "pack/shards", "process/upper", "migrate/out", "load/lost", "pack/circle")
OTHER_VALUES = {"revision", "commit", "startTime", "completionTime", "bytesPerSecond", "cachedBytes", "cachedPercent"}
OF_NODES = {"workers", "hitPercent", "lastSyncTime", "usedBytes"}


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3"), buckets=("raw", "repos")) as server:
        store: Any = open_store("s3://raw/", server.options)
        for number in range(12):
            store.put(f"texts/{number:02}.txt", f"text {number} ".encode() * 1000)
        yield server


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory, s3: S3Server) -> Iterator[Admin]:
    require(missing())
    with cluster(tmp_path_factory.mktemp("kube"), nodes=["n1"]) as running, running.client() as client:
        found = Admin(running, client)
        found.install()
        body = {"metadata": {"name": "s3"}, "stringData": {"key": s3.key, "secret": s3.secret}}
        found.api.ask("POST", f"/api/v1/namespaces/{NAMESPACE}/secrets", body)
        with node(running, "n1", subnet="10.150.1.0/24"):
            yield found


class Laptop:
    """A home with the secret, and what is declared for it."""

    def __init__(self, directory: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.s3 = s3
        monkeypatch.setenv("FOREBAY_HOME", str(directory / "home"))
        secret = directory / "home" / "secrets" / "s3"
        secret.mkdir(parents=True)
        (secret / "key").write_text(s3.key)
        (secret / "secret").write_text(s3.secret)

    def text(self, declared: str, where: str, cache: str) -> str:
        variables = {"CACHE": cache, "WHERE": where, "S3": self.s3.endpoint, "PYTHON": sys.executable, "UPPER": UPPER}
        for name, value in variables.items():
            declared = declared.replace(f"${{{name}}}", value)
        return declared

    def apply(self, text: str) -> int:
        file = self.directory / f"{os.urandom(4).hex()}.yaml"
        file.write_text(text)
        return run(["apply", "-f", str(file)])

    def commit(self, where: str) -> None:
        """Make the first version of a repository."""
        assert self.apply(self.text(DECLARED, where, f"{self.directory}/cache")) == 0
        assert run(["import", "-d", "texts"]) == 0
        assert run(["commit", "-d", "texts", "-m", "first"]) == 0

    def object(self, name: str) -> dict[str, Any]:
        kind, own = kind_and_name(name)
        return document_of(kind, own, current_settings())


def _told(status: dict[str, Any]) -> dict[str, Any]:
    """Return a status in a form that may be compared: times, rates and ids are told, whatever they are."""
    found = {key: "told" if key in OTHER_VALUES else value for key, value in status.items() if key not in OF_NODES}
    found["conditions"] = sorted(
        (
            each["type"],
            each["status"],
            each["reason"],
            each["message"].partition("s3://")[0],
            "lastTransitionTime" in each,
        )
        for each in status["conditions"]
    )
    return found


def _settled(admin: Admin, kind: str, name: str, wanted: dict[str, Any]) -> None:
    """Wait until the cluster tells what is wanted."""
    told: dict[str, Any] = {}

    def is_told() -> bool:
        nonlocal told
        status = admin.status(kind, NAMESPACE, name)
        told = _told(status) if status.get("conditions") else {}
        return told == wanted or told.get("phase") == "Failed"

    with suppress(AssertionError):  # said below, with what differs
        eventually(is_told, 120)
    assert told == wanted


def test_one_yaml_tells_the_same_in_a_cluster_and_on_a_laptop(
    admin: Admin, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    laptop = Laptop(tmp_path, s3, monkeypatch)
    laptop.commit("cluster")
    assert run(["delete", "texts"]) == run(["delete", "cache/nvme"]) == 0
    laptop.commit("laptop")
    for text in (DECLARED, OPERATIONS):
        laptop.apply(laptop.text(text, "laptop", f"{tmp_path}/cache"))  # exits with 1: two of them cannot begin
    with operator(admin, tmp_path):
        for document in yaml.safe_load_all(laptop.text(DECLARED + "---" + OPERATIONS, "cluster", "/var/cache/forebay")):
            admin.apply(document["kind"], NAMESPACE, document["metadata"]["name"], document["spec"])
        for name in NAMES:
            kind, own = kind_and_name(name)
            here = _told(laptop.object(name)["status"])
            _settled(admin, kind.name, own, here)
        here = laptop.object("cache/nvme")["status"]
        there = admin.status("CacheRuntime", NAMESPACE, "nvme")
        assert _told(there) == _told(here)
        admin.delete_all(NAMESPACE, "DataLoad", "DataPack", "DataProcess", "DataMigrate", "Dataset", "CacheRuntime")
        eventually(
            lambda: not [each for each in admin.left(NAMESPACE) if each not in ("secrets/s3", "services/kubernetes")]
        )
