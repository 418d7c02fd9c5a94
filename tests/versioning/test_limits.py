"""What a hostile store can hand us: only our errors come out, and memory stays capped."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources import Version
from tests.versioning.samples import built, entry, tiny_nodes
from tests.versioning.stores import MemoryStore
from versioning import ENTRY_SCHEMA, ChangeSet, CorruptRepositoryError, RepositoryFormatError, StageError, entries_table
from versioning.commits import commit_id, decode_commit
from versioning.nodes import NODE_SCHEMA, NodeId, decode_node, encode_node, node_of
from versioning.parquet_limits import MAX_ROWS
from versioning.reflogs import decode_update
from versioning.refs import decode_state
from versioning.spec import RepositorySpec, decode_spec, encode_spec
from versioning.staging import _decode as decode_stage
from versioning.staging import _encode as encode_stage
from versioning.thrift import Compact

if TYPE_CHECKING:
    from collections.abc import Callable

_SPEC = encode_spec(RepositorySpec.new())
_REF = json.dumps({"commit": "0" * 64, "sequence": 1, "transaction": "t", "updated_at": "2026-11-22T00:00:00.000Z"})
_STAGE = encode_stage(ChangeSet.of([entry("a"), entry("b")], ["c"]), None)
_PARSERS: dict[str, tuple[bytes, Callable[[bytes], object], type[Exception]]] = {
    "repo.json": (_SPEC, lambda data: decode_spec(data, uri="memory://x"), RepositoryFormatError),
    "commit": (
        json.dumps({"format": 1, "tree": "0" * 64, "parents": [], "stats": {}, "meta": {}}).encode(),
        lambda data: decode_commit(data, commit_id(data), key="commits/x"),
        CorruptRepositoryError,
    ),
    "ref": (_REF.encode(), lambda data: decode_state(data, Version("v"), key="refs/x"), CorruptRepositoryError),
    "log": (_REF.encode(), lambda data: decode_update(data, key="logs/x"), CorruptRepositoryError),
    "stage": (_STAGE, lambda data: decode_stage(data, "stage"), StageError),
}


@st.composite
def mutations(draw: st.DrawFn, whole: bytes) -> bytes:
    """Flip, cut, repeat and insert parts of a document."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["flip", "cut", "repeat", "insert", "drop"]))
        if kind == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del data[at:]
        elif kind == "repeat":
            data[at:at] = data[at : at + draw(st.integers(1, 40))]
        elif kind == "insert":
            data[at:at] = draw(st.sampled_from([b"[" * 5000, b'{"a":' * 5000, b"9" * 5000, b"1e999", b"\xff", b"null"]))
        else:
            del data[at : at + draw(st.integers(1, 20))]
    return bytes(data)


@pytest.mark.parametrize("name", list(_PARSERS))
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_mutated_document_gives_only_our_errors(name: str, data: st.DataObject) -> None:
    whole, decode, error = _PARSERS[name]
    with suppress(error):
        decode(data.draw(mutations(whole)))


@pytest.mark.parametrize("level", [0, 1])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_mutated_node_is_refused_or_the_same(level: int, data: st.DataObject) -> None:
    nodes = tiny_nodes(MemoryStore())
    node = nodes.read(built(nodes, [entry(f"{number:03}") for number in range(40)]).root)
    while node.level > level:
        node = nodes.read(node.child(0))
    with suppress(CorruptRepositoryError):
        read = decode_node(data.draw(mutations(encode_node(node).to_pybytes())), node.id, key="trees/x")
        assert read.table.equals(node.table)


def _written(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, compression="zstd", store_schema=False, **options)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _leaf_of(count: int, text: str) -> pa.Table:
    rows = entries_table([entry("a")]).take(pa.array([0] * count))
    return rows.set_column(rows.schema.get_field_index("meta"), ENTRY_SCHEMA.field("meta"), pa.repeat(text, count))


def _many_rows() -> bytes:
    return _written(_leaf_of(MAX_ROWS + 1, "{}"))


def _one_value_in_every_row() -> bytes:
    """A dictionary's one value of 1 MiB, in 700 rows, in some kilobytes."""
    text = "x" * (1 << 20)
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 700, pa.int32()), pa.array([text]))
    rows = entries_table([entry("a")]).take(pa.array([0] * 700))
    return _written(rows.set_column(rows.schema.get_field_index("meta"), "meta", column), use_dictionary=True)


def _one_prefix_of_every_row() -> bytes:
    """A prefix of 1 MiB that 700 rows share, as DELTA_BYTE_ARRAY writes it once."""
    rows = _leaf_of(700, "x" * (1 << 20))
    encodings = {"meta": "DELTA_BYTE_ARRAY"}
    return _written(rows, use_dictionary=False, column_encoding=encodings, write_statistics=False)


def _many_children() -> bytes:
    row = pa.table({"path": ["a"], "child": [bytes(32)], "rows": [1], "size": [1], "level": [1]}, schema=NODE_SCHEMA)
    return _written(row.take(np.zeros(MAX_ROWS + 1, np.int64)))


_MEASURE = """
import resource, sys
from versioning import CorruptRepositoryError
from versioning.nodes import NodeId, decode_node
data = open(sys.argv[1], "rb").read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode_node(data, NodeId(bytes(32)), key="trees/bomb")
except CorruptRepositoryError as error:
    print(str(error)[:200], file=sys.stderr)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("make", [_many_rows, _one_value_in_every_row, _one_prefix_of_every_row, _many_children])
def test_a_small_file_that_stands_for_gigabytes_is_refused_within_a_limit(
    make: Callable[[], bytes], tmp_path: object
) -> None:
    file = f"{tmp_path}/bomb"
    with open(file, "wb") as opened:
        opened.write(make())
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, file], capture_output=True, text=True, check=True, timeout=60
    )
    assert "too many" in done.stderr or "more than" in done.stderr, done.stderr  # not for another reason
    assert int(done.stdout) < 1600, "MiB"  # 512 decoded, and as much in a run that is being decoded


@given(first=st.integers(0, 100), second=st.integers(0, 100), between=st.integers(0, 3))
def test_a_description_that_says_a_thing_twice_is_refused(first: int, second: int, between: int) -> None:
    """Else a page could be PLAIN to us, who look for pages that grow, and a dictionary to those who decode it."""
    encoding = bytes([0x25, first << 1]) if first < 64 else bytes([0x25, first << 1 & 127 | 128, first >> 6])
    others = bytes([0x15, 2]) * between  # fields 3, 4 and so on
    again = bytes([0x05, 4, second << 1 & 127 | 128, second >> 6])  # field 2, by its number
    assert Compact(encoding + others + b"\0", 0).struct()[2] == first
    with pytest.raises(ValueError, match="twice"):
        Compact(encoding + others + again + b"\0", 0).struct()


def test_a_leaf_of_the_longest_paths_is_not_taken_for_a_bomb() -> None:
    rows = entries_table([entry(f"{'d/' * 2000}{number:06d}", number) for number in range(2000)])
    leaf = node_of(rows, 0)
    assert decode_node(encode_node(leaf).to_pybytes(), leaf.id, key="x").rows == 2000
    with pytest.raises(CorruptRepositoryError, match="its content does not match its id"):
        decode_node(encode_node(leaf).to_pybytes(), NodeId(bytes(32)), key="x")
