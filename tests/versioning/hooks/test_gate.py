from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.versioning.samples import AUTHOR, entry, external, tiny_repository
from versioning import (
    ChangeSet,
    CommitId,
    HookContext,
    HookRefusedError,
    HookResult,
    HooksFileError,
    MergeOptions,
    Repository,
    UntrustedHooksError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

HOOKS = ".ds/hooks.yaml"


def with_hooks(*hooks: dict[str, Any], **files: bytes) -> Repository:
    """A repository whose main asks for some hooks, trusted."""
    repository = tiny_repository()
    repository.gate.trusts = bool
    with repository.transaction("main", message="hooks", author=AUTHOR) as changes:
        changes.add(HOOKS, json.dumps({"hooks": hooks}).encode())
        for name, data in files.items():
            changes.add(name.replace("__", "/").replace("_py", ".py"), data)
    return repository


def commit(repository: Repository, *entries: Any, branch: str = "main", deleted: Iterable[str] = ()) -> CommitId:
    change = ChangeSet.of(entries, deleted)
    return repository.commit_changes(branch, change, message="m", author=AUTHOR, base=repository.head(branch))


def refusal(repository: Repository, *entries: Any) -> HookRefusedError:
    before = repository.head("main")
    with pytest.raises(HookRefusedError) as caught:
        commit(repository, *entries)
    assert repository.head("main") == before
    return caught.value


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_commit_keeps_what_hooks_said_and_others_have_no_such_field() -> None:
    repository = with_hooks({"id": "a", "max_file_bytes": 10}, {"id": "b", "branches": "x", "max_file_bytes": 0})
    first = repository.resolve("main")
    second = commit(repository, entry("one", 1))
    assert repository.commit(first).hooks == ()
    assert b"hooks" not in repository.store.fetch(f"repo/commits/{first[:2]}/{first}.json")[0].split(b'"message"')[0]
    again = Repository.open(repository.store, repository.prefix)
    assert again.commit(second).hooks == (HookResult("a", "passed"),)


def test_paths_must_be_allowed_but_may_be_deleted() -> None:
    repository = with_hooks({"id": "layout", "allowed_globs": ["data/**", "*.json"]})
    commit(repository, entry("data/x", 1), entry("d/a.json", 1))
    error = refusal(repository, entry("data/y", 1), entry("other", 1))
    assert (error.hook, error.findings) == ("layout", (("other", ""),))
    repository.gate.skips = True
    skipped = commit(repository, entry("other", 1))
    assert repository.commit(skipped).hooks == (HookResult("layout", "skipped"),)
    repository.gate.skips = False
    commit(repository, deleted=["other"])


def test_files_and_versions_have_sizes() -> None:
    repository = with_hooks({"id": "file", "max_file_bytes": 100}, {"id": "all", "max_total_bytes": 500})
    assert refusal(repository, entry("a", 101)).findings == (("a", "101 bytes"),)
    commit(repository, *(entry(f"{number}", 90) for number in range(3)))
    assert refusal(repository, entry("a", 90), entry("b", 91)).hook == "all"
    commit(repository, deleted=["0"])
    commit(repository, entry("a", 90))


def test_metadata_must_fit_the_schema() -> None:
    schema = {"type": "object", "required": ["label"], "properties": {"label": {"type": "integer"}}}
    repository = with_hooks({"id": "meta", "meta_schema": schema, "paths": ["labels/**"]})
    commit(repository, entry("labels/1", 1, meta='{"label":1}'), entry("elsewhere", 1))
    wrong = [entry("labels/2", 1, meta='{"label":"x"}'), entry("labels/3", 1), entry("labels/4", 1, meta="{")]
    error = refusal(repository, entry("labels/1", 2, meta='{"label":2}'), *wrong)
    assert [path for path, _ in error.findings] == ["labels/2", "labels/3", "labels/4"]
    assert "label: " in error.findings[0][1]


@pytest.mark.parametrize("schema", [{"type": "nope"}, {"$ref": "http://127.0.0.1:1/x"}, {"$ref": "file:///etc/passwd"}])
def test_a_schema_that_cannot_be_used_or_asks_for_others_is_refused(schema: dict[str, Any]) -> None:
    repository = with_hooks({"id": "meta", "meta_schema": schema})
    with pytest.raises(HooksFileError):
        commit(repository, entry("a", 1))


def test_external_objects_must_be_pinned_by_more_than_their_times() -> None:
    repository = with_hooks({"id": "pins", "no_unpinned_external": True})
    commit(repository, external("a", 'etag:"1"'), external("b", "vid:1"), entry("c", 1))
    weak = [external("d", "stat:1:2"), external("e", 'etag:W/"1"')]
    assert [path for path, _ in refusal(repository, *weak).findings] == ["d", "e"]


def test_nothing_foreign_runs_until_it_is_trusted_and_again_when_it_changes(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    command = [sys.executable, "tools/check.py", str(mark)]
    script = b"import sys; open(sys.argv[1], 'a').write('x')"
    repository = with_hooks({"id": "c", "run": command}, tools__check_py=script)
    trusted: set[str] = set()
    repository.gate.trusts = trusted.__contains__
    with pytest.raises(UntrustedHooksError) as caught:
        commit(repository, entry("a", 1))
    assert not mark.exists()
    trusted.add(caught.value.digest)
    commit(repository, entry("a", 1))
    with repository.transaction("main", message="other code", author=AUTHOR) as changes:
        changes.add("tools/check.py", script + b"  # and more")
    assert mark.read_text() == "xx"
    with pytest.raises(UntrustedHooksError):
        commit(repository, entry("b", 1))
    assert mark.read_text() == "xx"


def test_entry_points_need_trust_too_and_no_installed_one_is_refused() -> None:
    repository = with_hooks({"id": "p", "python": "nobody-has-this"})
    assert "install" in refusal(repository, entry("a", 1)).reason
    repository.gate.trusts = lambda digest: False
    assert isinstance(refusal(repository, entry("a", 1)), UntrustedHooksError)


def test_an_entry_point_sees_the_changes_and_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def hook(changes: Iterator[dict[str, Any]], context: HookContext, *, answer: str) -> Any:
        seen.append(([(each["path"], each["op"]) for each in changes], context.branch, context.author))
        if answer == "raise":
            raise KeyError("no")
        return [("a", "is wrong"), "text"] if answer == "wrong" else None

    class Point:
        def load(self) -> Any:
            return hook

    monkeypatch.setattr("versioning.hooks.code.entry_points", lambda group, name: [Point()])
    for answer in ("none", "wrong", "raise"):
        repository = with_hooks({"id": "p", "python": "x", "with": {"answer": answer}})
        if answer == "none":
            commit(repository, entry("a", 1))
        else:
            error = refusal(repository, entry("a", 1))
            assert error.findings == ((("a", "is wrong"), ("text", "")) if answer == "wrong" else ())
    assert seen == [([("a", "A")], "main", AUTHOR)] * 3


def test_a_command_reads_the_diff_and_the_environment(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    said = "sys.stdin.read() + os.environ['FOREBAY_HOOK_BRANCH'] + os.getcwd()"
    code = f"import os, sys; open({str(seen)!r}, 'w').write({said})"
    repository = with_hooks({"id": "c", "run": python(code)})
    repository.gate.directory = tmp_path
    commit(repository, entry("a", 1), entry("é", 1, meta='{"x":1}'))
    *lines, rest = seen.read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["path"], row["op"], row["meta"]) for row in rows] == [("a", "A", None), ("é", "A", {"x": 1})]
    assert rows[0]["oid"] == entry("a", 1).oid.hex()  # type: ignore[union-attr]
    assert rest == f"main{tmp_path}"


def test_what_a_command_says_is_the_reason() -> None:
    code = "import sys; print('a\\tis wrong'); sys.stderr.write('because'); sys.exit(7)"
    error = refusal(with_hooks({"id": "c", "run": python(code)}), entry("a", 1))
    assert (error.reason, error.findings) == ("because", (("a", "is wrong"),))
    assert "because\n  a: is wrong\nThe branch was not moved." in str(error)
    error = refusal(with_hooks({"id": "c", "run": ["/nowhere/at/all"]}), entry("a", 1))
    assert "cannot be run" in error.reason


def test_a_command_that_takes_too_long_is_killed_with_its_children() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    repository = with_hooks({"id": "c", "run": python(code), "timeout_seconds": 0.3})
    begun = time.monotonic()
    assert "longer than 0.3 s" in refusal(repository, *(entry(f"{number:05}", 1) for number in range(3000))).reason
    assert time.monotonic() - begun < 20


def test_a_command_need_not_read_what_it_is_given() -> None:
    repository = with_hooks({"id": "c", "run": python("pass")})
    commit(repository, *(entry(f"{number:05}", 1) for number in range(3000)))


def test_a_rebased_commit_is_asked_again_with_what_it_really_changes() -> None:
    repository = with_hooks({"id": "all", "max_total_bytes": 320})
    base = repository.resolve("main")
    commit(repository, entry("theirs", 150))
    change = ChangeSet.of([entry("ours", 150)])
    with pytest.raises(HookRefusedError):
        repository.commit_changes("main", change, message="m", author=AUTHOR, base=base)


@pytest.mark.parametrize("options", [MergeOptions(), MergeOptions(fast_forward="never"), MergeOptions(squash=True)])
def test_merges_are_asked_about_however_they_end(options: MergeOptions) -> None:
    repository = with_hooks({"id": "m", "events": ["pre-merge"], "allowed_globs": ["good"]})
    repository.create_branch("side", repository.resolve("main"))
    commit(repository, entry("bad", 1), branch="side")
    with pytest.raises(HookRefusedError):
        repository.merge(repository.resolve("side"), "main", author=AUTHOR, options=options)
    commit(repository, entry("good", 1), deleted=["bad"], branch="side")
    result = repository.merge(repository.resolve("side"), "main", author=AUTHOR, options=options)
    recorded = repository.commit(result.commit).hooks
    assert recorded == (() if result.kind == "fast-forward" else (HookResult("m", "passed"),))


def test_hooks_that_nobody_can_read_do_not_get_in() -> None:
    repository = with_hooks({"id": "a", "max_file_bytes": 9999})
    with pytest.raises(HooksFileError), repository.transaction("main", message="m", author=AUTHOR) as changes:
        changes.add(HOOKS, b"hooks: 1")


def test_hooks_that_got_in_broken_stop_all_but_their_correction() -> None:
    repository = tiny_repository()
    broken = external(HOOKS, 'etag:"1"')  # lies outside of the repository
    repository.work.check = lambda proposal: ()
    commit(repository, broken)
    repository.work.check = repository.gate.check
    with pytest.raises(HooksFileError):
        commit(repository, entry("a", 1))
    commit(repository, deleted=[HOOKS])
    commit(repository, entry("a", 1))
