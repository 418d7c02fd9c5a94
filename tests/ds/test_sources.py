"""One namespace over S3, NFS, HDFS, HTTP and a directory, all of them real servers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from sources import open_store
from tests.conftest import BUCKET
from tests.services import hdfs, http, nfs
from tests.services.requiring import require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.ds.conftest import World
    from tests.services.hdfs import HdfsCluster
    from tests.services.nfs import NfsServer


@pytest.fixture(scope="module")
def hdfs_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HdfsCluster]:
    require(hdfs.missing())
    with hdfs.hdfs_cluster(tmp_path_factory.mktemp("hdfs")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def nfs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NfsServer]:
    require(nfs.missing())
    with nfs.nfs_server(tmp_path_factory.mktemp("nfs")) as server:
        yield server


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    require(http.missing())
    with http.nginx(tmp_path / "web") as server:
        (server.root / "pages").mkdir()
        (server.root / "pages" / "a.html").write_bytes(b"from the web")
        yield server.url


MANIFEST = """\
apiVersion: forebay.dev/v1alpha1
kind: Dataset
metadata: {{name: all}}
spec:
  mounts:
    - {{name: s3, uri: "s3://{bucket}/{prefix}raw", path: s3, limits: {{concurrency: 8, requestsPerSecond: 500}}}}
    - {{name: hdfs, uri: "{hdfs}/data", path: hdfs}}
    - {{name: nfs, uri: "{nfs}/data", path: nfs, options: {nfs_options}}}
    - {{name: web, uri: "{web}/pages", path: web}}
    - {{name: files, uri: "file://{directory}/labels", path: files}}
  repo: {{uri: "s3://{bucket}/{prefix}all"}}
  cache: {{runtimeRef: {{name: local}}}}
---
apiVersion: forebay.dev/v1alpha1
kind: CacheRuntime
metadata: {{name: local}}
spec:
  tiers: [{{path: "{directory}/cache", capacity: 64Mi}}]
"""


def test_a_dataset_aggregates_every_kind_of_source(
    world: World, hdfs_cluster: HdfsCluster, nfs_server: NfsServer, web: str
) -> None:
    open_store(hdfs_cluster.url).put("data/h/1.bin", b"from hdfs")
    (nfs_server.export / "data").mkdir()
    (nfs_server.export / "data" / "n.bin").write_bytes(b"from nfs")
    world.manifest.write_text(
        MANIFEST.format(
            bucket=BUCKET,
            prefix=world.prefix,
            directory=world.directory,
            hdfs=hdfs_cluster.url,
            nfs=nfs_server.url,
            nfs_options=json.dumps(nfs_server.options),
            web=web,
        )
    )
    world.committed()
    assert world.ok("load", "all").code == 0
    for path, text in {
        "s3/0/00.png": "image 0",
        "hdfs/h/1.bin": "from hdfs",
        "nfs/n.bin": "from nfs",
        "web/a.html": "from the web",
        "files/00.json": '{"label": 0}',
    }.items():
        assert world.ok("cat", f"/{path}").out == text
    assert world.ok("import").code == 0
    assert world.ds("commit", "-m", "again").code == 1, "nothing changed, whatever the source"
    open_store(hdfs_cluster.url).put("data/h/1.bin", b"changed at hdfs")
    (nfs_server.export / "data" / "n.bin").write_bytes(b"changed at nfs")
    world.ok("import")
    changed = {row["path"] for row in world.ds("status", "--json").data["changes"]}
    assert changed == {"hdfs/h/1.bin", "nfs/n.bin"}
