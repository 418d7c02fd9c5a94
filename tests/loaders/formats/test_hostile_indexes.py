"""What an `index.json` of somebody else's must not be able to do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from loaders import ShardFormatError, open_records
from sources import SourceNotFoundError

if TYPE_CHECKING:
    from pathlib import Path

_LEAF = json.dumps([1, {"type": None, "context": None, "children_spec": []}])


def _write_mds(directory: Path, name: str, samples: int = 1) -> None:
    directory.mkdir()
    columns = {"column_names": ["x"], "column_encodings": ["bytes"], "column_sizes": [None]}
    raw = {"basename": name, "bytes": 100}
    entry = {**columns, "format": "mds", "version": 2, "samples": samples, "raw_data": raw, "zip_data": None}
    (directory / "index.json").write_text(json.dumps({"version": 2, "shards": [entry]}))


def _write_litdata(directory: Path, name: str, leaf: str, samples: int = 1) -> None:
    directory.mkdir()
    config = {"data_format": [leaf], "data_spec": _LEAF}
    chunks = [{"filename": name, "chunk_size": samples}]
    (directory / "index.json").write_text(json.dumps({"config": config, "chunks": chunks}))


@pytest.mark.parametrize("name", ["{.,.}{.,.}/secret", "{.,x}./secret", "*"])
def test_names_of_shards_are_no_patterns(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_bytes(bytes(100))
    _write_mds(tmp_path / "mds", name)
    _write_litdata(tmp_path / "litdata", name, "bytes")
    for kind in ("mds", "litdata"):
        with pytest.raises(SourceNotFoundError):
            open_records(tmp_path / kind)


@pytest.mark.parametrize("leaf", ["pickle", "pickle:", "pickle:x"])
def test_pickled_leaves_are_refused_under_every_spelling(tmp_path: Path, leaf: str) -> None:
    _write_litdata(tmp_path / "litdata", "chunk-0.bin", leaf)
    with pytest.raises(ShardFormatError, match="allow_pickle=True"):
        open_records(tmp_path / "litdata")


@pytest.mark.parametrize("leaf", ["no_header_numpy:99", "no_header_numpy:-1", "no_header_numpy:", "no_header_tensor:x"])
def test_arrays_of_no_known_type_are_refused(tmp_path: Path, leaf: str) -> None:
    _write_litdata(tmp_path / "litdata", "chunk-0.bin", leaf)
    with pytest.raises(ShardFormatError, match=r"index\.json: '0' is of the unknown kind"):
        open_records(tmp_path / "litdata")


@pytest.mark.parametrize(
    "config", [{"compression": "lz4"}, {"compression": "zstd", "compression_level": "batch"}, {"encryption": {"a": 1}}]
)
def test_chunks_that_cannot_be_read_are_told_by_their_index(tmp_path: Path, config: dict[str, object]) -> None:
    _write_litdata(tmp_path / "litdata", "chunk-0.bin", "bytes")
    path = tmp_path / "litdata" / "index.json"
    index = json.loads(path.read_text())
    index["config"].update(config)
    index["chunks"][0]["chunk_bytes"] = 10
    path.write_text(json.dumps(index))
    with pytest.raises(ShardFormatError, match="is not read here"):
        open_records(tmp_path / "litdata")


def test_shards_of_less_than_no_samples_are_refused(tmp_path: Path) -> None:
    _write_mds(tmp_path / "mds", "shard.00000.mds", -1)
    _write_litdata(tmp_path / "litdata", "chunk-0.bin", "bytes", -1)
    for kind in ("mds", "litdata"):
        with pytest.raises(ShardFormatError, match="less than no samples"):
            open_records(tmp_path / kind)
