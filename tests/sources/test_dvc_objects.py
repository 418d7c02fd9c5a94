from __future__ import annotations

import hashlib
import pickle
import secrets
from typing import TYPE_CHECKING

import pytest

from sources import (
    SourceChangedError,
    SourceConfigError,
    SourceNotFoundError,
    SourceUnavailableError,
    Version,
    open_store,
)
from sources.dvc.objects import DVC_OBJECTS, dvc_key, sizes_of
from tests.conftest import BUCKET

if TYPE_CHECKING:
    from pathlib import Path

    from sources import Store
    from tests.services.weed import S3Server

DATA = b"some bytes"
MD5 = hashlib.md5(DATA).hexdigest()
VERSION = Version(f"md5:{MD5}")
KEY = dvc_key("md5", MD5)


def put(place: Path, data: bytes, *, digest: str, layout: str = "files/md5") -> None:
    file = place / layout / digest[:2] / digest[2:]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


def objects(*places: Path) -> Store:
    return open_store("dvc://objects", {"places": [f"file://{place}" for place in places]})


def test_an_object_is_the_same_in_whatever_place_it_lies(tmp_path: Path) -> None:
    put(tmp_path / "remote", DATA, digest=MD5)
    store = objects(tmp_path / "cache", tmp_path / "remote")
    assert store.id == DVC_OBJECTS
    assert store.stat(KEY).version == VERSION
    assert bytes(store.read(KEY, start=0, length=len(DATA), version=VERSION)) == DATA
    assert bytes(store.read(KEY, start=5, length=3, version=VERSION)) == DATA[5:8]
    assert sizes_of(store, [KEY, dvc_key("md5", "0" * 32)]) == {KEY: len(DATA)}
    again = pickle.loads(pickle.dumps(store))
    assert bytes(again.read(KEY, start=0, length=4, version=VERSION)) == DATA[:4]


def test_the_layout_of_dvc_2_has_keys_of_its_own(tmp_path: Path) -> None:
    put(tmp_path, b"text", digest=MD5, layout="")
    store = objects(tmp_path)
    key = dvc_key("md5-dos2unix", MD5)
    assert bytes(store.read(key, start=0, length=4, version=Version(f"md5-dos2unix:{MD5}"))) == b"text"
    with pytest.raises(SourceNotFoundError):
        store.stat(KEY)


def test_a_listing_has_each_object_once(tmp_path: Path) -> None:
    for place in ("a", "b"):
        put(tmp_path / place, DATA, digest=MD5)
    put(tmp_path / "b", b"[]", digest=f"{'0' * 32}.dir")
    (tmp_path / "b" / "files" / "md5" / "stray").write_text("x")
    found = {stat.key: stat.size for stat in objects(tmp_path / "a", tmp_path / "b", tmp_path / "none").list("")}
    assert found == {KEY: len(DATA), dvc_key("md5", f"{'0' * 32}.dir"): 2}


def test_a_damaged_object_is_found_and_a_missing_one_named(tmp_path: Path) -> None:
    put(tmp_path, b"damaged!!!", digest=MD5)
    store = objects(tmp_path)
    with pytest.raises(SourceChangedError, match=MD5):
        store.read(KEY, start=0, length=10, version=VERSION)
    with pytest.raises(SourceChangedError):
        store.read(KEY, start=0, length=1, version=Version("md5:other"))
    absent = dvc_key("md5", "1" * 32)
    with pytest.raises(SourceUnavailableError, match="dvc push"):
        store.read(absent, start=0, length=1, version=Version(f"md5:{'1' * 32}"))


@pytest.mark.parametrize("key", ["md5/../../etc", "md5/ab/cd", "../x", "files/md5/aa/bb", "sha/aa/" + "0" * 30])
def test_a_key_that_is_no_objects_name_leads_nowhere(key: str, tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError):
        objects(tmp_path).read(key, start=0, length=1, version=None)


@pytest.mark.parametrize(
    "options",
    [{}, {"places": []}, {"places": "file:///x"}, {"places": [1]}, {"places": [{"url": "x"}]}, {"rev": "x"},
     {"places": ["dvc:///srv/project"]}],
)  # fmt: skip
def test_wrong_options_are_told(options: dict[str, object]) -> None:
    with pytest.raises(SourceConfigError, match="places"):
        open_store("dvc://objects", options)


def test_a_remote_on_s3_is_read_natively(s3: S3Server, tmp_path: Path) -> None:
    prefix = f"{secrets.token_hex(6)}/dvc"
    open_store(f"s3://{BUCKET}", s3.options).put(f"{prefix}/files/md5/{MD5[:2]}/{MD5[2:]}", DATA)
    place = {"uri": f"s3://{BUCKET}/{prefix}", "options": s3.options}
    store = open_store("dvc://objects", {"places": [f"file://{tmp_path}", place]})
    assert bytes(store.read(KEY, start=0, length=len(DATA), version=VERSION)) == DATA
    assert [stat.key for stat in store.list("")] == [KEY]


def test_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(SourceConfigError, match="read-only"):
        objects(tmp_path).put(KEY, DATA)
    with pytest.raises(SourceConfigError, match="read-only"):
        objects(tmp_path).delete(KEY)
