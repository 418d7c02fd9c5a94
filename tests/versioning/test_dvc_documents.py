from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from versioning.dvc import (
    CloudFile,
    DvcFileError,
    HashedFile,
    Output,
    Pipeline,
    check_layout,
    listing_bytes,
    load_yaml,
    parse_dvc_file,
    parse_listing,
    parse_lock,
    parse_pipeline,
    parse_remotes,
    plan_outputs,
)

A, B = "0cc175b9c0f1b6a831c399e269772661", "92eb5ffee6ae2fec3ad71c777531578f"


def test_a_dvc_file_names_outputs_below_its_own_directory() -> None:
    text = f"outs:\n- {{md5: {A}.dir, hash: md5, path: wav, nfiles: 2}}\n- {{md5: {B}, path: old.txt}}\n"
    assert parse_dvc_file(text.encode(), "data/wav.dvc") == [
        Output("data/wav", "md5", A, is_dir=True),
        Output("data/old.txt", "md5-dos2unix", B, is_dir=False),
    ]


def test_wdir_may_lead_up_but_not_out() -> None:
    text = f"wdir: ..\nouts: [{{md5: {A}, hash: md5, path: x}}]\n".encode()
    assert [output.path for output in parse_dvc_file(text, "data/x.dvc")] == ["x"]
    with pytest.raises(DvcFileError, match="outside of the repository"):
        parse_dvc_file(text, "x.dvc")


def test_outputs_without_a_copy_in_dvc_are_left_out() -> None:
    text = f"outs:\n- {{md5: {A}, hash: md5, path: x, cache: false}}\n- {{path: not-made-yet}}\n"
    assert parse_dvc_file(text.encode(), "x.dvc") == []


def test_a_cloud_versioned_directory_is_pinned_by_version_ids() -> None:
    text = f"""\
outs:
- path: data
  remote: versions
  files:
  - {{relpath: a/1, md5: {A}, size: 3, cloud: {{versions: {{etag: e, version_id: v1}}}}}}
  - {{relpath: 2, size: 0, cloud: {{versions: {{version_id: v2}}}}}}
""".replace("relpath: 2", "relpath: '2'")
    (output,) = parse_dvc_file(text.encode(), "data.dvc")
    assert output.cloud == (
        CloudFile("a/1", "v1", 3, f"md5:{A}", "versions"),
        CloudFile("2", "v2", 0, "vid:v2", "versions"),
    )


def test_a_lock_takes_directories_and_uncached_outputs_from_the_pipeline() -> None:
    pipeline = parse_pipeline(
        b"stages:\n  train:\n    matrix: {m: [a]}\n    wdir: w\n    cmd: x\n    outs: [model]\n"
        b"    metrics: [{m.json: {cache: false}}]\n",
        "top/dvc.yaml",
    )
    assert pipeline.directories == {"train": "top/w"}
    made = f"[{{path: model, md5: {A}, hash: md5}}, {{path: m.json, md5: {B}}}]"
    lock = f"schema: '2.0'\nstages: {{train@a: {{outs: {made}}}}}\n"
    assert [output.path for output in parse_lock(lock.encode(), "top/dvc.lock", pipeline)] == ["top/w/model"]
    without_schema = f"train: {{outs: [{{path: model, md5: {A}}}]}}".encode()
    assert [output.path for output in parse_lock(without_schema, "dvc.lock", Pipeline())] == ["model"]


def test_remotes_are_read_from_the_configuration() -> None:
    text = b"[core]\n    remote = s\n['remote \"s\"']\n    url = s3://b/p\n    profile = x\n"
    assert parse_remotes(text) == ({"s": "s3://b/p"}, "s")


def test_a_listing_is_written_as_dvc_writes_it() -> None:
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree

    files = {"b/ü": A, "a b": B, "a": A, "b!": B}
    tree: Any = cast("Any", Tree)()
    for path, digest in files.items():
        tree.add(tuple(path.split("/")), None, HashInfo("md5", digest))
    assert listing_bytes(files.items()) == tree.as_bytes()


@given(st.lists(st.tuples(st.text("abü /.", min_size=1, max_size=6), st.sampled_from([A, B])), max_size=5))
def test_a_listing_that_is_read_has_only_paths_in_the_directory(files: list[tuple[str, str]]) -> None:
    data = listing_bytes(files)
    try:
        found = parse_listing(data, "x", digest=hashlib.md5(data).hexdigest())
    except DvcFileError:
        return
    assert sorted(found) == sorted(files)
    assert all(part not in ("", ".", "..") for path, _ in found for part in path.split("/"))


yaml_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just(A),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["outs", "path", "md5", "hash", "wdir", "stages", "schema", "files", "cloud", "cache", "a"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(yaml_like)
def test_arbitrary_documents_give_outputs_inside_of_the_repository_or_our_error(content: object) -> None:
    data = json.dumps(content).encode()
    found: list[Output] = []
    with suppress(DvcFileError):
        found += parse_dvc_file(data, "d/x.dvc")
    with suppress(DvcFileError):
        found += parse_lock(data, "d/dvc.lock", Pipeline())
    with suppress(DvcFileError):
        parse_pipeline(data, "d/dvc.yaml")
    assert all(".." not in output.path.split("/") and not output.path.startswith("/") for output in found)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_only_our_error(data: bytes) -> None:
    with suppress(DvcFileError):
        parse_dvc_file(data, "x.dvc")
    with suppress(DvcFileError):
        parse_remotes(data)
    with suppress(DvcFileError):
        parse_listing(data, "x", digest=hashlib.md5(data).hexdigest())


def test_deep_nesting_does_not_end_the_process() -> None:
    with pytest.raises(DvcFileError, match="deep"):
        load_yaml(b"[" * 1_000_000, "x.dvc")


def test_each_thing_at_the_top_is_an_output() -> None:
    assert check_layout(["a/1", "a/b/2", "z"]) == ["a", "z"]
    files = [HashedFile("a/1", A, 1), HashedFile("a/b/2", B, 2), HashedFile("z", A, 1)]
    directory, single = plan_outputs(files, commit="c" * 64)
    assert directory.listing is not None
    (output,) = parse_dvc_file(directory.text.encode(), "a.dvc")
    assert output == Output("a", "md5", directory.listing[1], is_dir=True)
    assert parse_listing(directory.listing[0], "a", digest=output.digest) == [("1", A), ("b/2", B)]
    assert (single.name, single.listing) == ("z", None)


@pytest.mark.parametrize("paths", [["a/.git/x"], ["a/.dvcignore"], ["x.dvc"], [".gitignore"], ["a", "a/b"]])
def test_paths_that_mean_something_else_to_dvc_are_refused(paths: list[str]) -> None:
    with pytest.raises(DvcFileError):
        check_layout(paths)
