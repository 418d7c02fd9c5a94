from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import ds
from ds.replaying import kept_writes, resume_write
from ds.settings import Settings
from tests.conftest import BUCKET
from tests.services.faults import Faults, fault_proxy

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.weed import S3Server

MANIFEST = """\
apiVersion: forebay.dev/v1alpha1
kind: Dataset
metadata: {{name: ckpt}}
spec:
  mounts: [{{name: raw, uri: "file://{directory}", path: raw}}]
  repo: {{uri: "s3://{bucket}/{prefix}", options: {{endpoint_url: "{url}", key: "{key}", secret: "{secret}"}}}}
"""


def test_a_transaction_outlives_an_outage_of_the_bucket(s3: S3Server, tmp_path: Path) -> None:
    files = {"large": os.urandom(20 << 20), **{f"small/{number}": os.urandom(1000) for number in range(20)}}
    with fault_proxy(int(s3.endpoint.rpartition(":")[2])) as proxy:
        place = {"bucket": BUCKET, "prefix": secrets.token_hex(6), "directory": tmp_path, "url": proxy.url}
        manifest = tmp_path / "dataset.yaml"
        manifest.write_text(MANIFEST.format(**place, key=s3.key, secret=s3.secret))
        settings = Settings.of({"FOREBAY_HOME": str(tmp_path / "home")})
        ds.apply(manifest, settings=settings)
        healing = threading.Timer(1.0, proxy.heal)
        with ds.transaction("ckpt@runs", settings=settings) as transaction:
            proxy.refuse()
            healing.start()
            for path, data in files.items():
                with transaction.open(path) as file:
                    file.write(data)
        healing.join(10)
        dataset = ds.Dataset("ckpt", settings=settings)
        for path, data in files.items():
            with dataset.open(path, "runs") as file:  # there is no cache: from the bucket
                assert file.read() == data
        assert not any((tmp_path / "home" / "outbox").glob("*/*/*"))


WRITING = """\
import os, sys, ds
with ds.transaction("ckpt@runs") as transaction:
    with transaction.open("a") as file:
        file.write(os.urandom(1000))
    print("written", flush=True)
    sys.stdin.readline()
"""


def test_ctrl_c_while_the_bucket_hangs_ends_at_once_and_keeps_everything(s3: S3Server, tmp_path: Path) -> None:
    with fault_proxy(int(s3.endpoint.rpartition(":")[2])) as proxy:
        place = {"bucket": BUCKET, "prefix": secrets.token_hex(6), "directory": tmp_path, "url": proxy.url}
        manifest = tmp_path / "dataset.yaml"
        manifest.write_text(MANIFEST.format(**place, key=s3.key, secret=s3.secret))
        settings = Settings.of({"FOREBAY_HOME": str(tmp_path / "home")})
        ds.apply(manifest, settings=settings)
        environment = {**os.environ, **settings.variables}
        with subprocess.Popen(
            [sys.executable, "-c", WRITING],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as writer:
            assert writer.stdin is not None
            assert writer.stdout is not None
            assert writer.stdout.readline() == "written\n"
            proxy.faults = Faults(hang=True)
            writer.stdin.write("\n")
            writer.stdin.flush()
            time.sleep(1.5)  # now it commits
            writer.send_signal(signal.SIGINT)
            try:
                writer.wait(20)
            finally:
                writer.kill()
        proxy.heal()
        (kept,) = kept_writes(settings)
        assert kept.state == "finished"
        resume_write(kept.id, settings)
        assert [entry.path for entry in ds.Dataset("ckpt", settings=settings).tree("runs").entries()] == ["a"]
