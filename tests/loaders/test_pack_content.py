"""What goes into shards: transforms, key rules, inputs that cannot be had; and what gc makes of it."""

from __future__ import annotations

import os
import tarfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from loaders import PackError, PackOptions, SampleIndex, ShardLayout, pack, plan_pack
from loaders.errors import CodeError, CorruptSampleError, KeyRuleError, TransformError
from loaders.packing.workplaces import OpenedWorkplace, lent, plain_workplace
from sources import SourceChangedError
from tests.loaders.conftest import AUTHOR, Workshop
from tests.loaders.pack_transforms import hundreds, upper
from tests.loaders.test_packing import digits, packs
from versioning import ChangeSet
from versioning.maintenance import GcPolicy, collect_garbage

if TYPE_CHECKING:
    from loaders import PackReport
    from versioning import CommitId

LAYOUT = ShardLayout(shuffle=True, seed=3, shard_size=20_000)


def run(workshop: Workshop, *, layout: ShardLayout = LAYOUT, branch: str = "main", **options: Any) -> PackReport:
    chosen = PackOptions(**options)
    return pack(
        workshop.repository, "main", workshop.client, layout=layout, branch=branch, author=AUTHOR, options=chosen
    )


def contents(workshop: Workshop, commit: CommitId) -> dict[str, bytes]:
    entries = list(workshop.repository.tree_of(commit).entries())
    data = workshop.client.read_many([entry.location(workshop.repository.root) for entry in entries])
    return {entry.path: bytes(content) for entry, content in zip(entries, data, strict=True)}


def expected_upper(files: dict[str, bytes]) -> dict[str, bytes]:
    made: dict[str, bytes] = {}
    for path, data in files.items():
        key, _, field = path.rpartition(".")
        if field == "png" and int(key.rpartition("/")[2]) % 5:
            made |= {path: data * 2, f"{key}.len": str(len(data)).encode()}
    return made


def test_a_transform_makes_other_content_and_the_commit_says_so(workshop: Workshop) -> None:
    files = digits(40)
    before = workshop.import_files(files)
    report = run(workshop, transform=upper, transform_version="v2")
    assert contents(workshop, report.commit) == expected_upper(files)
    assert (report.samples, report.dropped) == (32, 9)  # every fifth, and the text
    meta = workshop.repository.commit(report.commit).meta["forebay.pack"]
    assert (meta["transform"], meta["version"]) == ("tests.loaders.pack_transforms:upper", "v2")
    assert len(meta["code"]) == 16
    operations = workshop.repository.diff(before, report.commit).table["op"].to_pylist()
    assert {op: operations.count(op) for op in operations} == {"A": 32, "D": 49, "M": 32}
    kept = {entry.path: entry for entry in workshop.repository.tree_of(report.commit).entries()}
    assert {entry.source for entry in kept.values()} == {None}  # an import has not seen what was made
    index = SampleIndex.from_tree(workshop.repository.tree("main"), workshop.repository.root)
    assert index.fields == ("len", "png")
    with tarfile.open(packs(workshop)[0]) as tar:
        assert {name.rpartition(".")[2] for name in tar.getnames()} == {"len", "png"}


def test_content_that_a_transform_changed_in_place_is_no_change_of_layout(workshop: Workshop) -> None:
    before = workshop.import_files({"1.a": b"one", "1.b": b"two"})
    report = run(workshop, transform=lambda sample: {**sample, "a": b"eno"})
    table = workshop.repository.diff(before, report.commit).table
    assert dict(zip(table["path"].to_pylist(), table["op"].to_pylist(), strict=True)) == {"1.a": "M", "1.b": "L"}


def test_large_members_of_a_sample_go_through_the_transform_too(workshop: Workshop) -> None:
    workshop.import_files({"1.png": b"x" * ((16 << 20) + 1), "README": b"stays"})
    report = run(workshop, transform=lambda sample: {"png": bytes(sample["png"][:3])})
    assert contents(workshop, report.commit) == {"1.png": b"xxx", "README": b"stays"}


@pytest.mark.parametrize(
    ("transform", "error", "text"),
    [
        ("tests.loaders.pack_transforms:fail_with_seven", TransformError, "ValueError: seven"),
        ("tests.loaders.pack_transforms:returns_text", TransformError, "'txt' of sample .* is a str; encode it"),
        (lambda sample: [1], TransformError, "returned a list"),
        (lambda sample: {"__key__": "other"}, TransformError, "renamed sample"),
        (lambda sample: {"a/b": b""}, TransformError, "is no field name"),
        ("tests.loaders.pack_transforms:missing", CodeError, "has no 'missing'"),
        ("nowhere.at.all:missing", CodeError, "set PYTHONPATH"),
        ("nothing", CodeError, "write module:function"),
    ],
)
def test_transforms_that_cannot_be_used_are_refused(
    workshop: Workshop, transform: Any, error: type[Exception], text: str
) -> None:
    head = workshop.import_files(digits(10))
    with pytest.raises(error, match=text):
        run(workshop, transform=transform)
    assert workshop.repository.resolve("main") == head


def test_samples_that_a_transform_fails_with_may_be_skipped(workshop: Workshop) -> None:
    workshop.import_files(digits(30))
    transform = "tests.loaders.pack_transforms:fail_with_seven"
    with pytest.raises(PackError):
        run(workshop, transform=transform, skip_errors=2)
    report = run(workshop, transform=transform, skip_errors=3)
    assert [skipped.path for skipped in report.skipped] == [f"images/7/00{n}7.cls" for n in range(3)]
    assert not {path for path in contents(workshop, report.commit) if "7." in path}


def test_inputs_that_changed_may_be_skipped_and_stay_where_they_are(workshop: Workshop) -> None:
    files = digits(30)
    before = workshop.import_files(files)
    for name in ("images/1/0001.png", "images/2/0002.cls"):
        (workshop.source / name).write_bytes(b"other")
        os.utime(workshop.source / name, ns=(1, 1))
    (workshop.source / "images/3/0003.png").unlink()
    with pytest.raises((SourceChangedError, PackError)):
        run(workshop, skip_errors=2)
    assert workshop.repository.resolve("main") == before
    report = run(workshop, skip_errors=3)
    assert [each.path for each in report.skipped] == ["images/1/0001.png", "images/2/0002.cls", "images/3/0003.png"]
    assert all("0001.png" in each.reason for each in report.skipped[:1])
    table = workshop.repository.diff(before, report.commit).table
    assert set(table["op"].to_pylist()) == {"L"}
    assert len(table) == len(files) - 3 == report.files


@pytest.mark.parametrize("verify", [False, True])
def test_known_hashes_are_compared(workshop: Workshop, verify: bool) -> None:
    workshop.import_files(digits(5))
    head = run(workshop).commit
    entry = next(entry for entry in workshop.repository.tree_of(head).entries() if entry.size > 10)
    assert entry.crc32c is not None
    wrong = replace(entry, oid=bytes(32)) if verify else replace(entry, crc32c=entry.crc32c ^ 1)
    workshop.repository.commit_changes("main", ChangeSet.of([wrong]), message="m", author=AUTHOR, base=head)
    with pytest.raises(CorruptSampleError, match=rf"{entry.path}: its bytes hash to"):
        run(workshop, layout=replace(LAYOUT, seed=4), verify=verify)


class _Forgetful:
    """A store that keeps other bytes than it was given: of an object that it takes whole, or piece by piece."""

    def __init__(self, store: Any, cut: int) -> None:
        self._store, self._cut = store, cut

    def stat(self, key: str) -> Any:
        return self._store.stat(key)

    def read(self, key: str, **range_: Any) -> Any:
        return self._store.read(key, **range_)

    def put(self, key: str, data: Any) -> None:
        kept = bytearray(data)
        kept[600] ^= 1
        self._store.put(key, bytes(kept[: len(kept) - self._cut]))


class _ForgetfulInPieces(_Forgetful):
    def begin(self, directory: str, *, uncached: bool = False) -> Any:
        assert uncached
        self.data = bytearray()
        self.write = self.data.extend
        return self

    def publish(self, key: str) -> None:
        self.put(key, self.data)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("kind", [_Forgetful, _ForgetfulInPieces])
@pytest.mark.parametrize(("cut", "verify", "text"), [(1, False, "the store has"), (0, True, "gives back hash to")])
def test_what_was_written_is_compared(workshop: Workshop, cut: int, verify: bool, text: str, kind: Any) -> None:
    from loaders.packing.making import ShardMaker
    from loaders.packing.planning import Inventory

    commit = workshop.import_files(digits(5))
    repository = workshop.repository
    store: Any = kind(repository.store, cut)
    inventory, workplace = Inventory.of(repository, commit, LAYOUT, whole_samples=False), plain_workplace(repository)
    with (
        lent(workplace, OpenedWorkplace(store, repository.prefix, workshop.client)),
        pytest.raises(PackError, match=text),
    ):
        ShardMaker().make(inventory.task(0, workplace, None, verify=verify, skip_errors=0))


@pytest.mark.parametrize(
    "rule", [hundreds, "tests.loaders.pack_transforms:hundreds", r"(?P<key>\d\d)(?P<field>\d\d)\.[a-z]+$"]
)
def test_samples_are_joined_by_a_rule_of_the_users(workshop: Workshop, rule: Any) -> None:
    workshop.import_files({f"{n % 3}/{n:04d}.png": b"p" * n for n in range(90, 140)} | {"README": b"r"})
    layout = ShardLayout(key=rule, shard_size=1)
    report = run(workshop, layout=layout)
    assert (report.samples, report.files) == (3, 51)
    names = []
    for path in packs(workshop):
        with tarfile.open(path) as tar:
            names.append(sorted(tar.getnames()))
    assert sorted(names) == [[f"00.{n}" for n in range(90, 100)], [f"01.{n:02d}" for n in range(40)], ["README"]]
    meta = workshop.repository.commit(report.commit).meta["forebay.pack"]
    assert meta["key"] == (rule if isinstance(rule, str) else "tests.loaders.pack_transforms:hundreds")
    index = SampleIndex.from_tree(workshop.repository.tree("main"), workshop.repository.root, key=rule)
    assert sorted(map(str, index.keys)) == ["00", "01"]


@pytest.mark.parametrize("rule", ["nope", "(", "(?P<other>a)", "(a)"])
def test_key_rules_that_cannot_be_used_are_refused(rule: str) -> None:
    with pytest.raises(KeyRuleError, match="key rule"):
        ShardLayout(key=rule)


def test_a_key_function_that_returns_no_key_is_refused(workshop: Workshop) -> None:
    workshop.import_files({"a.b": b""})
    with pytest.raises(KeyRuleError, match="expected a key"):
        run(workshop, layout=ShardLayout(key=lambda path: 7))  # type: ignore[arg-type, return-value]


def test_a_file_with_the_name_of_a_key_is_no_member_of_its_sample(workshop: Workshop) -> None:
    workshop.import_files({"1": b"no member", "1.png": b"member"})
    report = run(workshop, transform=lambda sample: {"png": sample["png"] * 2})
    assert contents(workshop, report.commit) == {"1": b"no member", "1.png": b"membermember"}


def test_a_plan_says_what_the_pack_does(workshop: Workshop) -> None:
    workshop.import_files(digits(40) | {"large.bin": bytes((16 << 20) + 1)})
    plan = plan_pack(workshop.repository, "main", layout=LAYOUT)
    report = run(workshop)
    assert (plan.samples, plan.files, plan.bytes, plan.shards) == (
        report.samples, report.files, report.bytes, report.shards,
    )  # fmt: skip
    assert plan.tar_bytes == sum(path.stat().st_size for path in packs(workshop))
    assert plan.large_files == 1


def test_a_plan_counts_what_an_interrupted_run_has_stored(workshop: Workshop, tmp_path: Any) -> None:
    workshop.import_files(digits(40))

    def stop(now: Any) -> None:
        if now.shards == 2:
            raise KeyboardInterrupt

    options = PackOptions(journals=tmp_path / "journals")
    with pytest.raises(KeyboardInterrupt):
        pack(
            workshop.repository, "main", workshop.client, layout=LAYOUT, branch="main", author=AUTHOR,
            options=options, on_progress=stop,
        )  # fmt: skip
    assert plan_pack(workshop.repository, "main", layout=LAYOUT, options=options).stored_shards >= 1


def test_gc_leaves_the_shards_of_a_running_pack_and_collects_those_of_one_that_was_given_up(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("versioning.maintenance.leases._FIRST_SECONDS", 0.0)  # else the first minute has no lease
    workshop.import_files(digits(40))
    policy = GcPolicy(grace_seconds=0.0)

    def look(now: Any) -> None:
        if now.shards == 3:
            while not list((workshop.source.parent / "repo" / "leases").glob("*")):
                pass
            for _ in range(2):  # one condemns, the next deletes
                collect_garbage(workshop.repository, policy)
            assert len(packs(workshop)) >= 3

    pack(workshop.repository, "main", workshop.client, layout=LAYOUT, branch="main", author=AUTHOR, on_progress=look)
    stored = len(packs(workshop))

    def give_up(now: Any) -> None:
        if now.shards == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(
            workshop.repository, "main", workshop.client, layout=replace(LAYOUT, seed=9), branch="main",
            author=AUTHOR, on_progress=give_up,
        )  # fmt: skip
    assert len(packs(workshop)) > stored
    for _ in range(3):
        collect_garbage(workshop.repository, policy)
    assert len(packs(workshop)) == stored
