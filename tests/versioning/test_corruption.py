from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources import Version
from tests.versioning.samples import AUTHOR, built, entry, tiny_nodes, tiny_repository
from tests.versioning.stores import MemoryStore
from versioning import ChangeSet, CorruptRepositoryError, Repository, RepositoryFormatError, StageError
from versioning.commits import CommitId, commit_id, decode_commit
from versioning.nodes import NODE_SCHEMA, NodeId, decode_node, encode_node, node_of
from versioning.nodestore import NodeStore
from versioning.reflogs import decode_update
from versioning.refs import decode_state
from versioning.spec import RepositorySpec, decode_spec
from versioning.staging import Stage
from versioning.staging import _decode as decode_stage
from versioning.trees import Tree

if TYPE_CHECKING:
    from pathlib import Path


def _reopened(repository: Repository) -> Repository:
    return Repository.open(repository.store, repository.prefix)


def _two_commits() -> tuple[Repository, MemoryStore]:
    store = MemoryStore()
    repository = tiny_repository(store)
    change = ChangeSet.of([entry(f"{number:03d}") for number in range(100)])
    first = repository.commit_changes("main", change, message="", author=AUTHOR, base=None)
    repository.commit_changes("main", ChangeSet.of([entry("x")]), message="", author=AUTHOR, base=first)
    return repository, store


@pytest.mark.parametrize("folder", ["trees/", "commits/"])
@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "swapped"])
def test_a_damaged_object_is_noticed(folder: str, damage: str) -> None:
    repository, store = _two_commits()
    keys = sorted(key for key in store.objects if f"/{folder}" in key)
    data = store.objects[keys[0]]
    other = store.objects[keys[1]]
    for key in keys:
        if damage == "missing":
            del store.objects[key]
        elif damage == "cut":
            store.objects[key] = data[: len(data) // 2]
        elif damage == "flipped":
            store.objects[key] = data[:50] + bytes([data[50] ^ 1]) + data[51:]
        else:
            store.objects[key] = other if key == keys[0] else data
    with pytest.raises(CorruptRepositoryError, match=folder):
        list(_reopened(repository).tree("main").scan())


def test_a_node_whose_meaning_was_changed_is_noticed() -> None:
    nodes = tiny_nodes()
    leaf = nodes.read(built(nodes, [entry("a", 1)]).root)
    forged = node_of(leaf.table.set_column(2, leaf.table.schema.field(2), pa.array([2], pa.int64())), 0)
    with pytest.raises(CorruptRepositoryError, match="does not match its id"):
        decode_node(encode_node(forged).to_pybytes(), leaf.id, key="trees/x")


def test_a_child_that_does_not_fit_is_noticed() -> None:
    store = MemoryStore()
    nodes = tiny_nodes(store)
    leaf = nodes.read(built(nodes, [entry("a"), entry("b")]).root)
    columns = {"path": ["b", "c"], "child": [leaf.id, leaf.id], "rows": [2, 2], "size": [0, 0], "level": [2, 2]}
    forged = node_of(pa.table(columns, schema=NODE_SCHEMA), 2)
    nodes.write(forged)
    for level, path in ((2, "a"), (1, "c")):
        relevelled = columns | {"level": [level, level]}
        forged = node_of(pa.table(relevelled, schema=NODE_SCHEMA), level)
        nodes.write(forged)
        with pytest.raises(CorruptRepositoryError, match="does not fit into its parent"):
            Tree(NodeStore(store, "", RepositorySpec.new()), forged.id).get(path)


def test_a_damaged_ref_is_noticed() -> None:
    repository, _ = _two_commits()
    for content in (b"", b"{}", b"null", b'{"commit": "x", "sequence": 1, "transaction": "", "updated_at": ""}'):
        repository.store.put("repo/refs/heads/main", content)
        with pytest.raises(CorruptRepositoryError, match="refs/heads/main"):
            repository.resolve("main")


_SPEC_KEYS = ["format", "hash", "id", "leaf", "inner", "features"]
_COMMIT_KEYS = ["tree", "parents", "stats", "meta", "lineage", "author", "committer", "message", "generation"]
_REF_KEYS = ["commit", "sequence", "transaction", "updated_at", "authored_at", "committed_at"]
_KEYS = [*_SPEC_KEYS, *_COMMIT_KEYS, *_REF_KEYS]
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=6),
    max_leaves=12,
)
_documents = st.binary(max_size=60) | _json.map(lambda value: json.dumps(value).encode())


@settings(max_examples=80, deadline=None)
@given(_documents)
def test_arbitrary_bytes_give_only_our_errors(data: bytes) -> None:
    with pytest.raises(RepositoryFormatError):
        decode_spec(data, uri="memory://x")
    with pytest.raises(CorruptRepositoryError):
        decode_commit(data, commit_id(data), key="commits/x")
    with pytest.raises(CorruptRepositoryError):
        decode_commit(data, CommitId("0" * 64), key="commits/x")
    with pytest.raises(CorruptRepositoryError):
        decode_node(data, NodeId(bytes(32)), key="trees/x")
    with pytest.raises(CorruptRepositoryError):
        decode_state(data, Version("v"), key="refs/x")
    with pytest.raises(CorruptRepositoryError):
        decode_update(data, key="logs/x")
    with pytest.raises(StageError):
        decode_stage(data, "stage")


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_damaged_parquet_gives_only_our_errors(data: st.DataObject) -> None:
    nodes = tiny_nodes()
    node = nodes.read(built(nodes, [entry(f"{number}") for number in range(2)]).root)
    whole = bytearray(encode_node(node).to_pybytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with suppress(CorruptRepositoryError):
        assert decode_node(bytes(whole), node.id, key="trees/x").table.equals(node.table)


def test_a_damaged_stage_is_left_alone(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "stage")
    stage.path.write_bytes(b"nonsense")
    for action in (stage.read, lambda: stage.update(ChangeSet.of([entry("a")]), base=None)):
        with pytest.raises(StageError, match="delete it and stage the changes again"):
            action()
    assert stage.path.read_bytes() == b"nonsense"
    assert stage.clear()
