import pickle
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaders.errors import DuplicateFieldError, MissingFieldError
from loaders.grouping import COLUMNS, group_members
from loaders.keys import KeyRule, split_paths
from loaders.samples import SampleIndex
from sources import StoreId
from versioning import CorruptRepositoryError, Entry, EntryKind, RepositoryRoot, entries_table

ROOT = RepositoryRoot(StoreId("file://"), "data/repo/")


def packed(path: str, pack: str, offset: int, size: int = 10) -> Entry:
    return Entry(
        path=path,
        kind=EntryKind.PACKED,
        size=size,
        oid=None,
        crc32c=offset,
        store="",
        key=f"packs/{pack}.tar",
        version=f"oid:{pack}",
        offset=offset,
        object_size=1_000_000,
    )


def external(path: str, size: int = 10) -> Entry:
    return Entry(path, EntryKind.EXTERNAL, size, None, None, "s3://raw", f"in/{path}", "etag:1", 0, size)


class FixedTree:
    """The one method of a tree that an index needs, over entries in memory, a few to a leaf."""

    def __init__(self, entries: Iterable[Entry], leaf: int = 3) -> None:
        rows = sorted(entries, key=lambda entry: entry.path.encode())
        self.leaves = [rows[i : i + leaf] for i in range(0, len(rows), leaf)]

    def scan(self, prefix: str = "", *, columns: list[str] | None = None) -> Iterable[pa.Table]:
        for leaf in self.leaves:
            table = entries_table([entry for entry in leaf if entry.path.startswith(prefix)])
            yield table.select(columns or table.column_names)


def index_of(entries: Iterable[Entry], **options: object) -> SampleIndex:
    return SampleIndex.from_tree(FixedTree(entries), ROOT, **options)  # type: ignore[arg-type]


def contents(index: SampleIndex) -> list[tuple[str, list[tuple[str, str, int, int]]]]:
    numbers = np.arange(len(index))
    batch = index.gather(numbers)
    refs = index.objects.refs(batch.objects)
    members = [
        (index.fields[field], ref.key, offset, length)
        for field, ref, offset, length in zip(batch.fields, refs, batch.offsets, batch.lengths, strict=True)
    ]
    stops = np.cumsum(batch.counts).tolist()
    return [
        (key, members[stop - count : stop])
        for key, count, stop in zip(index.keys_of(numbers), batch.counts, stops, strict=True)
    ]


@pytest.mark.parametrize(
    ("path", "rule", "key", "field"),
    [
        ("a/b/17.png", "path", "a/b/17", "png"),
        ("a/b/17.png", "stem", "17", "png"),
        ("17.seg.PNG", "path", "17", "seg.png"),
        ("v1.2/17.png", "path", "v1.2/17", "png"),
        ("v1.2/17.png", "stem", "17", "png"),
        ("a b/ü\n.txt", "path", "a b/ü\n", "txt"),
        ("README", "path", None, None),
        ("a/.hidden", "path", None, None),
        ("a/.hidden.png", "stem", None, None),
        ("a.d/README", "stem", None, None),
        ("trailing.", "path", None, None),
    ],
)
def test_a_path_splits_at_the_first_dot_of_its_base_name(
    path: str, rule: KeyRule, key: str | None, field: str | None
) -> None:
    keys, fields = split_paths(pa.array([path]), rule=rule)
    assert (keys.to_pylist(), fields.to_pylist()) == ([key], [field])


def test_files_with_one_key_are_one_sample() -> None:
    index = index_of([packed("3/a.png", "p", 0), packed("3/a.cls", "p", 20), packed("3/b.png", "p", 40)])
    assert contents(index) == [
        ("3/a", [("cls", "data/repo/packs/p.tar", 20, 10), ("png", "data/repo/packs/p.tar", 0, 10)]),
        ("3/b", [("png", "data/repo/packs/p.tar", 40, 10)]),
    ]
    assert len(index.objects) == 1
    assert index.size == 30


def test_stem_joins_directories() -> None:
    index = index_of([external("images/3/17.png"), external("labels/17.json")], key="stem")
    assert contents(index) == [
        ("17", [("json", "in/labels/17.json", 0, 10), ("png", "in/images/3/17.png", 0, 10)]),
    ]


def test_samples_are_in_storage_order() -> None:
    index = index_of([packed("a.x", "q", 50), packed("b.x", "p", 90), packed("c.x", "p", 10), packed("d.x", "q", 20)])
    assert [key for key, _ in contents(index)] == ["c", "b", "d", "a"]


def test_paths_of_the_same_bytes_keep_the_order_of_their_paths() -> None:
    index = index_of([packed("b.x", "p", 0), packed("a.x", "p", 0), packed("c.x", "p", 0)])
    assert [key for key, _ in contents(index)] == ["a", "b", "c"]


def test_paths_that_are_no_members_are_counted() -> None:
    index = index_of([packed("README", "p", 0), packed("x/.git", "p", 5), packed("a.png", "p", 9)])
    assert (len(index), index.skipped) == (1, 2)


def test_prefix_and_where_choose_samples() -> None:
    entries = [external(f"train/{i}.png") for i in range(5)] + [external(f"test/{i}.png") for i in range(5)]
    index = index_of(entries, prefix="train/", where=lambda key: not key.endswith("3"))
    assert [key for key, _ in contents(index)] == ["train/0", "train/1", "train/2", "train/4"]


def test_fields_leaves_the_others_out() -> None:
    index = index_of(
        [packed("a.png", "p", 0), packed("a.cls", "p", 20), packed("a.txt", "p", 40)], fields=["txt", "cls"]
    )
    assert index.fields == ("cls", "txt")
    assert [[member[0] for member in members] for _, members in contents(index)] == [["cls", "txt"]]


def test_a_missing_field_names_samples() -> None:
    entries = [packed("a.png", "p", 0), packed("a.cls", "p", 20), *(packed(f"b{i}.png", "p", 40 + i) for i in range(5))]
    with pytest.raises(MissingFieldError, match=r"5 of 6 samples have no field 'cls': b0, b1, b2, \.\.\.;") as caught:
        index_of(entries, fields=["png", "cls"])
    assert (caught.value.field, caught.value.keys, caught.value.count) == ("cls", ("b0", "b1", "b2"), 5)
    with pytest.raises(MissingFieldError, match=r"6 of 6 samples have no field 'jpg'.*the fields are cls, png"):
        index_of(entries, fields=["jpg"])


def test_two_paths_for_one_field_are_refused_with_both_paths_and_the_rule() -> None:
    with pytest.raises(DuplicateFieldError) as caught:
        index_of([external("a/17.png"), external("b/17.png"), external("c/18.png")], key="stem")
    assert caught.value.paths == ("a/17.png", "b/17.png")
    assert "field 'png' of sample '17' under key rule 'stem'" in str(caught.value)
    with pytest.raises(DuplicateFieldError, match=r"a\.PNG and a\.png"):
        index_of([external("a.png"), external("a.PNG")])


def test_an_unknown_key_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown key rule 'name'; known: path, stem"):
        index_of([external("a.png")], key="name")


def test_a_range_outside_of_its_object_is_refused() -> None:
    with pytest.raises(CorruptRepositoryError, match=r"a\.x names 10 bytes at 999995 of 1000000"):
        index_of([packed("a.x", "p", 999_995)])


def test_no_samples_make_an_empty_index() -> None:
    index = index_of([])
    assert (len(index), contents(index), index.fields, index.size) == (0, [], (), 0)


def test_more_objects_than_are_kept_are_still_right() -> None:
    index = index_of([external(f"{i:06d}.png") for i in range(2000)])
    index.objects._kept = 100
    for start in range(0, 2000, 77):
        numbers = list(range(start, min(start + 150, 2000)))
        assert [ref.key for ref in index.objects.refs(numbers)] == [f"in/{i:06d}.png" for i in numbers]
        assert len(index.objects.known) <= 150


def test_an_index_pickles() -> None:
    index = index_of([packed("a.png", "p", 0), packed("a.cls", "p", 20)])
    assert contents(pickle.loads(pickle.dumps(index))) == contents(index)


def test_the_fingerprint_follows_samples_and_order_not_places() -> None:
    def fingerprint(*entries: Entry, **options: object) -> str:
        return index_of(entries, **options).fingerprint

    base = fingerprint(packed("a.x", "p", 0), packed("b.x", "p", 50))
    assert fingerprint(packed("a.x", "q", 7), packed("b.x", "q", 70)) == base
    assert fingerprint(packed("a.x", "p", 50), packed("b.x", "p", 0)) != base
    assert fingerprint(packed("a.x", "p", 0), packed("c.x", "p", 50)) != base
    assert fingerprint(packed("a.y", "p", 0), packed("b.y", "p", 50)) != base
    assert fingerprint(packed("a.x", "p", 0), packed("b.x", "p", 50, size=11)) != base
    assert (
        len(
            {
                fingerprint(packed("ab.x", "p", 0), packed("c.x", "p", 50)),
                fingerprint(packed("a.x", "p", 0), packed("bc.x", "p", 50)),
            }
        )
        == 2
    )


names = st.sampled_from(["a", "b", "c", "d/a", "d/b", "e/a"])
fields = st.sampled_from(["x", "y", "z", "x.y"])


@given(rows=st.lists(st.tuples(names, fields, st.sampled_from("pqr"), st.integers(0, 99)), unique_by=lambda r: r[:2]))
def test_grouping_equals_a_plain_loop(rows: list[tuple[str, str, str, int]]) -> None:
    entries = sorted((packed(f"{name}.{field}", pack, at) for name, field, pack, at in rows), key=lambda e: e.path)
    expected: dict[str, list[Entry]] = {}
    for entry in entries:
        expected.setdefault(
            entry.path.rpartition("/")[0] + "/" + entry.path.rpartition("/")[2].split(".")[0], []
        ).append(entry)
    order = sorted(expected, key=lambda key: min((e.key, e.offset, e.path) for e in expected[key]))
    got = contents(index_of(entries))
    assert [f"/{key}" if "/" not in key else key for key, _ in got] == order
    for (_, members), key in zip(got, order, strict=True):
        assert sorted((m[1], m[2]) for m in members) == sorted((ROOT.prefix + e.key, e.offset) for e in expected[key])


def test_leaves_may_have_any_types_of_strings() -> None:
    table = entries_table([packed("a.x", "p", 0)])
    columns = {name: table[name] for name in COLUMNS}
    wide = pa.table({**columns, "path": columns["path"].cast(pa.large_string())})
    assert group_members([table, wide.slice(0, 0)], rule="path").keys.to_pylist() == ["a"]
