"""Other packages read what we write, and we what they write.

webdataset and datasets are development tools. mosaicml-streaming and litdata bring 5 GB (transformers, every cloud's
client): their tests run where `make bench` has made its environment, and what they wrote once lies in `data/`.
"""

from __future__ import annotations

import json
import os
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loaders import ShardDataset, ShardWriter

PEERS = Path(__file__).parents[3] / ".bench-venv" / "bin" / "python"
needs_peers = pytest.mark.skipif(
    not PEERS.exists(), reason="NOT TESTED: mosaicml-streaming and litdata; run make bench"
)


def peer(package: str, directories: list[Path], tmp_path: Path) -> Any:
    """Let a package do something in a process of its own environment."""
    command: list[str | Path] = [PEERS, Path(__file__).parent / "peers.py", package, *directories]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def sample(number: int) -> dict[str, object]:
    return {
        "__key__": f"d{number % 3}/{number:04d}",
        "bin": bytes([number]) * number,
        "cls": number,
        "json": {"n": number},
    }


def written(directory: Path, form: Any = "tar") -> Path:
    with ShardWriter(directory, format=form, shard_size="20kB") as writer:
        for number in range(50):
            writer.write(sample(number))
    assert len(writer.shards) > 1 or form == "mds"
    return directory


def test_webdataset_reads_what_we_write(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own
        import webdataset

        urls = sorted(str(path) for path in written(tmp_path).glob("*.tar"))
        found = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode())
    assert [one["__key__"] for one in found] == [f"d{number % 3}/{number:04d}" for number in range(50)]
    assert [(one["bin"], one["cls"], one["json"]) for one in found] == [
        (bytes([number]) * number, number, {"n": number}) for number in range(50)
    ]
    assert {frozenset(name for name in one if not name.startswith("__")) for one in found} == {
        frozenset(["bin", "cls", "json"])
    }


def test_we_read_what_webdataset_writes(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import webdataset

        with webdataset.ShardWriter(str(tmp_path / "%06d.tar"), maxsize=20_000, verbose=0) as writer:
            for number in range(50):
                writer.write(sample(number))
    dataset = ShardDataset.open(tmp_path)
    assert dataset.__getitems__(range(50)) == [sample(number) for number in range(50)]


def test_hf_datasets_reads_what_we_write(tmp_path: Path) -> None:
    import datasets  # type: ignore[import-untyped]

    urls = sorted(str(path) for path in written(tmp_path / "shards").glob("*.tar"))
    loaded = datasets.load_dataset(
        "webdataset", data_files=urls, split="train", streaming=True, cache_dir=str(tmp_path)
    )
    found = list(loaded)
    assert [one["__key__"] for one in found] == [f"d{number % 3}/{number:04d}" for number in range(50)]
    assert [(one["bin"], one["cls"], one["json"]) for one in found] == [
        (bytes([number]) * number, number, {"n": number}) for number in range(50)
    ]


@needs_peers
def test_mosaicml_streaming_reads_what_we_write_and_we_what_it_writes(tmp_path: Path) -> None:
    found = peer("mds", [written(tmp_path / "ours", "mds"), tmp_path / "theirs"], tmp_path)
    assert found == [{**sample(number), "bin": (bytes([number]) * number).hex()} for number in range(50)]
    places = sorted((tmp_path / "theirs").iterdir())
    assert [place.name for place in places] == ["br", "gz", "plain", "zstd"]
    for place in places:
        check_theirs(place)


@needs_peers
def test_we_read_what_litdata_writes(tmp_path: Path) -> None:
    peer("litdata", [tmp_path], tmp_path)
    check_theirs(tmp_path / "plain")


def check_theirs(place: Path) -> None:
    dataset = ShardDataset.open(place)
    assert len(dataset) == 30
    for i, one in enumerate(dataset.__getitems__(range(30))):
        np.testing.assert_array_equal(one["a"], np.arange(i + 1))
        assert (one["b"], one["n"], one["t"]) == (bytes([i]) * i, i, f"t{i}")
