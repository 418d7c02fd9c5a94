"""A repository that the first version of the format wrote: it stays readable, and its ids stay what they are."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet
import pytest
from blake3 import blake3

from sources import FileStore
from tests.versioning.golden.make_format_1 import AUTHOR, FILES
from tests.versioning.samples import entry, tiny_nodes
from versioning import (
    ENTRY_SCHEMA,
    ChangeSet,
    EntryKind,
    NothingToCommitError,
    Repository,
    RepositorySpec,
    RevisionNotFoundError,
    entries_table,
)
from versioning.building import build_tree
from versioning.commits import CommitId
from versioning.nodes import decode_node, encode_node, node_of
from versioning.nodestore import NodeStore

if TYPE_CHECKING:
    from typing import Any

GOLDEN = Path(__file__).parent / "golden" / "format-1"
FIRST = CommitId("1eb3f28d37d6551e39adfa5f7eeea9089438a1f36fc89dcac6dd603383a726ac")
COMMITS = [
    CommitId("8b8a13e0e7daedbe1b242caa75994c05432aa995678a3dc66689bbf684721edd"),
    CommitId("687eba5fa55c8e0b1d0b663a332071445c4e35e3df1d8a1b918abd95efbd3ebd"),
    CommitId("d0480f7ce6dab8ce1dda85154fe070ff8b4250936aacf804bf814c251c380986"),
    CommitId("1eb3f28d37d6551e39adfa5f7eeea9089438a1f36fc89dcac6dd603383a726ac"),
]
TREES = [
    "ea8f3611f9d6219e27f78d6dfbca3547b7235d467b2fee1902be089a552b98d3",
    "33aed9abf35dd196c8775bef4824cd3be56e3cc98158645a260a683c785cdf1d",
    "f2a2ba84e89feab3349577aaf8b47b07ef6fc6f1f74fb1d11e978a30b21ba429",
    "55be97e8f0475bb7db8c4a98291f96617969f5179e942c0c7e9f9aed9c1e76dc",
]


@pytest.fixture(name="repository")
def _repository(tmp_path: Path) -> Repository:
    place = tmp_path / "golden"
    shutil.copytree(GOLDEN, place)
    return Repository.open(FileStore(place), f"{place}/"[1:])


def test_the_history_of_format_1_is_what_it_was(repository: Repository) -> None:
    log = list(repository.log("main"))
    assert [identity for identity, _ in log] == COMMITS
    assert [commit.tree for _, commit in log] == TREES
    assert [len(commit.parents) for _, commit in log] == [2, 1, 1, 0]
    assert dict(repository.branches()) == {"feature/x": COMMITS[1], "main": COMMITS[0], "side": COMMITS[1]}
    assert repository.tags() == {"v1/ü": FIRST}
    first = repository.commit(FIRST)
    assert (first.message, first.author) == ("Added\n\nfrom disk", AUTHOR)
    assert (first.meta, first.generation) == ({"ticket": "é-1"}, 1)
    assert (first.stats.files, first.stats.bytes) == (len(FILES), sum(map(len, FILES.values())))
    assert repository.commit(COMMITS[1]).lineage == {"code": "git:1"}
    assert [update.sequence for update in repository.branch_log("main")] == [3, 2, 1]


def test_a_branch_deleted_in_format_1_is_gone_and_can_come_back(repository: Repository) -> None:
    with pytest.raises(RevisionNotFoundError):
        repository.resolve("gone")
    repository.create_branch("gone", FIRST)
    assert [update.sequence for update in repository.branch_log("gone")] == [3, 2, 1]


def test_the_bytes_of_format_1_are_what_they_were(repository: Repository) -> None:
    tree = repository.tree("v1/ü")
    assert {found.path for found in tree.entries()} == set(FILES)
    for path, data in FILES.items():
        found = tree.get(path)
        assert found is not None
        assert (found.size, found.oid) == (len(data), blake3(data).digest())
        where = found.location(repository.root)
        key, version = where.object.key, where.object.version
        assert bytes(repository.store.read(key, start=where.offset, length=where.length, version=version)) == data
    imported = repository.tree("main").get("raw/007.jpg")
    assert imported is not None
    assert (imported.kind, imported.store, imported.key) == (EntryKind.EXTERNAL, "s3://raw", "raw/007.jpg")
    assert repository.tree("main").get("a.txt") is None


def test_a_tree_of_format_1_built_anew_has_the_same_id(repository: Repository) -> None:
    for identity in COMMITS:
        tree = repository.tree_of(identity)
        assert build_tree(tiny_nodes_like(repository.spec), list(tree.scan())).hex() == tree.id


def tiny_nodes_like(spec: RepositorySpec) -> NodeStore:
    return NodeStore(tiny_nodes()._store, "other/", spec)


def test_work_on_a_repository_of_format_1_goes_on(repository: Repository) -> None:
    head = repository.head("main")
    commit = repository.commit_changes("main", ChangeSet.of([entry("new")]), message="", author=AUTHOR, base=head)
    undone = repository.commit_changes("main", ChangeSet.of(deleted=["new"]), message="", author=AUTHOR, base=commit)
    assert repository.commit(undone).tree == TREES[0]
    assert repository.diff(COMMITS[0], undone).table.num_rows == 0
    with pytest.raises(NothingToCommitError):
        repository.commit_changes("main", ChangeSet.of(deleted=["new"]), message="", author=AUTHOR, base=undone)


ROWS = entries_table([entry(f"{number:03d}/é", number, meta="{}" if number % 3 else None) for number in range(100)])


def _chunked() -> pa.Table:
    return pa.concat_tables([ROWS.slice(start, length) for start, length in ((0, 1), (1, 0), (1, 60), (61, 39))])


def _sliced() -> pa.Table:
    return pa.concat_tables([ROWS, ROWS]).combine_chunks().slice(100, 100)


def _through_dictionaries() -> pa.Table:
    columns = [column.dictionary_encode() for column in ROWS.columns]
    return pa.Table.from_arrays(columns, names=ROWS.schema.names).cast(ENTRY_SCHEMA)


def _through_large_strings() -> pa.Table:
    fields = [pa.field(each.name, pa.large_string() if each.type == pa.string() else each.type) for each in ROWS.schema]
    return ROWS.cast(pa.schema(fields)).cast(ENTRY_SCHEMA)


@pytest.mark.parametrize("make", [_chunked, _sliced, _through_dictionaries, _through_large_strings])
def test_an_id_does_not_depend_on_how_arrow_holds_the_rows(make: Any) -> None:
    assert node_of(make(), 0).id == node_of(ROWS, 0).id
    assert node_of(ROWS, 0).id.hex() == "4f70a2e04262fd65135fd42acb986af726a5d1d752d2439f8d8e8448dfc383ae"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_dictionary": True, "compression": "snappy"},
        {"use_dictionary": False, "compression": "none", "data_page_version": "2.0"},
        {"row_group_size": 7, "data_page_size": 64, "compression": "gzip", "write_statistics": True},
        {"version": "1.0", "compression": "lz4"},
    ],
)
def test_a_leaf_may_be_any_parquet_of_its_rows(options: dict[str, Any]) -> None:
    """Other libraries and versions encode in other ways; the id is of what they mean."""
    leaf = node_of(ROWS, 0)
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(ROWS, sink, **options)
    assert decode_node(sink.getvalue().to_pybytes(), leaf.id, key="x").table.equals(leaf.table)
    assert decode_node(encode_node(leaf).to_pybytes(), leaf.id, key="x").table.equals(leaf.table)
