from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

import ds
from ds.application import run
from ds.exits import Exit
from ds.worktree import WorkingDataset
from versioning import LocalChangesError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOREBAY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FOREBAY_AUTHOR", "Ada <ada@example.org>")
    monkeypatch.delenv("FOREBAY_DATASET", raising=False)
    return tmp_path


@pytest.fixture
def work(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working copy around some files, one commit in it; the current directory."""
    root = home / "shop"
    root.mkdir()
    monkeypatch.chdir(root)
    assert run(["init"]) == Exit.OK
    write(root, {"images/1.png": "one", "images/2.png": "two", "labels.csv": "1,2"})
    assert run(["add", "-A"]) == Exit.OK
    assert run(["commit", "-m", "First"]) == Exit.OK
    return root


def write(root: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def files(root: Path) -> dict[str, str]:
    return {
        str(file.relative_to(root)): file.read_text()
        for file in sorted(root.rglob("*"))
        if file.is_file() and not str(file.relative_to(root)).startswith(".ds/local")
    }


def short(capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    run(["status", "-s"])
    return capsys.readouterr().out.splitlines()


def test_a_directory_becomes_a_repository_and_a_clone_has_its_files(work: Path, home: Path) -> None:
    assert run(["status"]) == Exit.OK
    assert run(["clone", str(work), str(home / "other")]) == Exit.OK
    assert files(home / "other") == files(work)
    assert run(["init", str(work)]) == Exit.USAGE
    assert run(["clone", str(work), str(home / "other")]) == Exit.USAGE
    assert run(["clone", str(work), str(work / "inside")]) == Exit.USAGE


def test_commands_find_the_working_copy_from_below(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(work / "images")
    write(work, {"images/1.png": "ONE", "new": "new"})
    assert run(["add", "1.png", "../new"]) == Exit.OK
    assert short(capsys) == ["M  1.png", "A  ../new"]
    assert run(["add", "../../elsewhere"]) == Exit.USAGE
    assert run(["add", "../.ds/local/lock"]) == Exit.USAGE
    assert run(["ls", "@main/images"]) == Exit.OK
    assert run(["log", "--oneline"]) == Exit.OK


def test_a_working_copy_moves_with_its_own_repository(work: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work.rename(home / "moved")
    monkeypatch.chdir(home / "moved")
    assert run(["status"]) == Exit.NO or run(["status"]) == Exit.OK
    write(home / "moved", {"labels.csv": "3"})
    assert run(["commit", "-a", "-m", "Second"]) == Exit.OK


def test_status_exits_with_1_and_says_what_is_what(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(work, {"images/1.png": "changed", "new": "", "labels.csv": "staged"})
    (work / "images/2.png").unlink()
    run(["add", "labels.csv"])
    write(work, {"labels.csv": "and changed again"})
    assert short(capsys) == [" M images/1.png", " D images/2.png", "MM labels.csv", "?? new"]
    assert run(["status", "--json"]) == Exit.NO
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "ds.status.v1"
    assert document["data"]["modified"] == ["images/1.png", "labels.csv"]
    assert document["data"]["deleted"] == ["images/2.png"]
    assert document["data"]["untracked"] == ["new"]
    assert [row["path"] for row in document["data"]["changes"]] == ["labels.csv"]


def test_what_was_staged_and_taken_back_is_not_staged(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(work, {"labels.csv": "other"})
    run(["add", "labels.csv"])
    write(work, {"labels.csv": "1,2"})
    run(["add", "labels.csv"])
    assert short(capsys) == []
    assert run(["commit", "-m", "Nothing"]) == Exit.NO


def test_ignored_files_are_left_out_unless_they_are_tracked(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(
        work, {".dsignore": "*.tmp\n/build/\n!keep.tmp\n", "a.tmp": "", "keep.tmp": "", "build/x": "", "b/build/y": ""}
    )
    write(work, {"b/.dsignore": "*.log\n", "b/z.log": "", "z.log": ""})
    assert short(capsys) == ["?? .dsignore", "?? b/.dsignore", "?? b/build/y", "?? keep.tmp", "?? z.log"]
    assert run(["add", "a.tmp"]) == Exit.USAGE
    assert run(["add", "build"]) == Exit.USAGE
    write(work, {".dsignore": "*.csv\n", "labels.csv": "changed"})
    assert " M labels.csv" in short(capsys)


def test_a_pattern_that_cannot_be_is_refused_with_its_file(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(work, {".dsignore": "[z-a]\n"})
    assert run(["status"]) == Exit.USAGE
    assert str(work / ".dsignore") in capsys.readouterr().err


def test_a_checkout_goes_there_and_back_and_heeds_what_was_changed(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(work, {"images/1.png": "ONE", "more": "more"})
    run(["tag", "v1"])
    run(["add", "-A"])
    run(["commit", "-m", "Second"])
    assert run(["checkout", "v1"]) == Exit.OK
    assert files(work) == {"images/1.png": "one", "images/2.png": "two", "labels.csv": "1,2"}
    assert run(["commit", "-a", "-m", "Nowhere"]) == Exit.USAGE  # no branch is checked out
    write(work, {"images/1.png": "mine"})
    capsys.readouterr()
    assert run(["checkout", "main"]) == Exit.NO
    assert "images/1.png: changed here" in capsys.readouterr().err
    assert run(["restore", "images/1.png"]) == Exit.OK
    assert run(["checkout", "-b", "side"]) == Exit.OK
    write(work, {"side": "side"})
    run(["add", "side"])
    assert run(["commit", "-m", "On side"]) == Exit.OK
    assert run(["switch", "main"]) == Exit.OK
    assert sorted(files(work)) == ["images/1.png", "images/2.png", "labels.csv", "more"]
    assert run(["switch", "nowhere"]) == Exit.NOT_FOUND


def test_chosen_files_of_another_version_are_staged_or_only_written(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(work, {"images/1.png": "ONE", "images/2.png": "TWO"})
    run(["commit", "-a", "-m", "Second"])
    assert run(["checkout", "main~1", "--", "images/1.png"]) == Exit.OK
    assert run(["restore", "-s", "main~1", "images/2.png"]) == Exit.OK
    assert short(capsys) == ["M  images/1.png", " M images/2.png"]
    assert run(["restore", "--staged", "images/1.png"]) == Exit.OK
    assert short(capsys) == [" M images/1.png", " M images/2.png"]
    assert run(["restore", "images"]) == Exit.OK
    assert short(capsys) == []
    assert run(["restore", "nowhere"]) == Exit.NOT_FOUND
    assert files(work)["images/1.png"] == "ONE"


def test_removing_and_renaming_work_on_the_disk_and_in_the_stage(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(work, {"images/1.png": "changed"})
    assert run(["rm", "images"]) == Exit.NO
    assert run(["mv", "images", "pictures"]) == Exit.OK
    assert short(capsys) == [
        "D  images/1.png",
        "D  images/2.png",
        "AM pictures/1.png",
        "A  pictures/2.png",
    ]
    assert run(["rm", "labels.csv", "--cached"]) == Exit.OK
    assert "?? labels.csv" in short(capsys)
    assert run(["rm", "-f", "pictures/1.png"]) == Exit.OK
    assert run(["commit", "-m", "Renamed"]) == Exit.OK
    assert files(work) == {"pictures/2.png": "two", "labels.csv": "1,2"}
    assert run(["mv", "pictures/2.png", "labels.csv"]) == Exit.USAGE
    assert run(["mv", "nothing", "x"]) == Exit.NOT_FOUND
    assert run(["reset"]) == Exit.OK


def test_a_reset_leaves_the_files_and_forgets_the_stage(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(work, {"labels.csv": "changed", "new": ""})
    (work / "images/1.png").unlink()
    run(["add", "-A"])
    assert run(["reset"]) == Exit.OK
    assert short(capsys) == [" D images/1.png", " M labels.csv", "?? new"]


def test_a_commit_brings_what_others_committed(work: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(["clone", str(work), str(home / "other")])
    monkeypatch.chdir(home / "other")
    write(home / "other", {"theirs": "theirs", "labels.csv": "theirs"})
    run(["add", "-A"])
    assert run(["commit", "-m", "Theirs"]) == Exit.OK
    monkeypatch.chdir(work)
    write(work, {"mine": "mine"})
    run(["add", "mine"])
    assert run(["commit", "-m", "Mine"]) == Exit.OK
    assert files(work)["theirs"] == "theirs"
    assert files(work)["labels.csv"] == "theirs"
    assert run(["status"]) == Exit.OK


def test_a_commit_stands_although_what_others_changed_cannot_be_checked_out(work: Path, home: Path) -> None:
    run(["clone", str(work), str(home / "other")])
    other, mine = WorkingDataset(home / "other"), WorkingDataset(work)
    write(home / "other", {"labels.csv": "theirs"})
    other.add_changed(untracked=False)
    other.commit("Theirs")
    write(work, {"mine": "mine", "labels.csv": "mine, not staged"})
    mine.add([str(work / "mine")])
    with pytest.raises(LocalChangesError, match=r"labels\.csv"):
        mine.commit("Mine")
    assert mine.repository.tree("main").get("mine") is not None
    write(work, {"labels.csv": "1,2"})
    mine.checkout("main")
    assert files(work) == {**files(home / "other"), "mine": "mine"}
    assert not mine.status()


def test_a_clone_holds_what_its_patterns_choose(
    work: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["clone", str(work), str(home / "part"), "--sparse", "images/1*"]) == Exit.OK
    assert list(files(home / "part")) == ["images/1.png"]
    monkeypatch.chdir(home / "part")
    assert run(["sparse", "add", "*.csv"]) == Exit.OK
    assert list(files(home / "part")) == ["images/1.png", "labels.csv"]
    capsys.readouterr()
    assert run(["sparse", "list"]) == Exit.OK
    assert capsys.readouterr().out == "images/1*\n*.csv\n"
    assert run(["sparse", "set", "/labels.csv"]) == Exit.OK
    assert list(files(home / "part")) == ["labels.csv"]
    assert run(["sparse", "disable"]) == Exit.OK
    assert files(home / "part") == files(work)


MANIFEST = """
apiVersion: forebay.dev/v1alpha1
kind: Dataset
metadata: {{name: declared}}
spec:
  mounts: [{{name: raw, uri: "file://{0}/raw", path: raw}}]
  repo: {{uri: "file://{0}/declared-repo"}}
  cache: {{runtimeRef: {{name: local}}}}
---
apiVersion: forebay.dev/v1alpha1
kind: CacheRuntime
metadata: {{name: local}}
spec:
  tiers: [{{path: "{0}/cache", capacity: 64Mi}}]
"""


@pytest.fixture
def declared(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write(home, {"raw/1.txt": "1", "raw/2.txt": "2", "raw/odd/3.txt": "3"})
    (home / "dataset.yaml").write_text(MANIFEST.format(home))
    monkeypatch.chdir(home)
    assert run(["apply", "-f", "dataset.yaml"]) == Exit.OK
    assert run(["import"]) == Exit.OK
    assert run(["commit", "-m", "Imported"]) == Exit.OK
    return home


def test_a_clone_of_a_declared_dataset_reads_its_sources_through_its_cache(
    declared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["clone", "ds://declared@main", "here"]) == Exit.OK
    assert files(declared / "here") == {"raw/1.txt": "1", "raw/2.txt": "2", "raw/odd/3.txt": "3"}
    monkeypatch.chdir(declared / "here")
    assert run(["status"]) == Exit.OK  # whose hash nobody knew before it was checked out
    write(declared / "here", {"raw/1.txt": "x"})
    assert run(["commit", "-a", "-m", "Changed"]) == Exit.OK
    assert ds.Dataset("declared").open("raw/1.txt").read() == b"x"
    assert (os.stat(declared / "here/.ds/local/dataset.yaml").st_mode & 0o777) == 0o600


def test_objects_of_a_source_are_staged_without_a_copy(declared: Path) -> None:
    assert run(["add", f"file://{declared}/raw/odd/", "--to", "chosen"]) == Exit.OK
    assert run(["add", f"file://{declared}/raw/1.txt", "--to", "chosen"]) == Exit.OK
    assert run(["commit", "-m", "Chosen"]) == Exit.OK
    opened = ds.Dataset("declared")
    assert opened.open("chosen/3.txt").read() == b"3"
    entry = opened.tree().get("chosen/1.txt")
    assert entry is not None
    assert entry.kind == "external"
    assert run(["add", f"file://{declared}/dataset.yaml", "--to", "x"]) == Exit.USAGE
    assert run(["add", f"file://{declared}/raw/nothing", "--to", "x"]) == Exit.NOT_FOUND


def test_files_are_renamed_without_a_working_copy(declared: Path) -> None:
    assert run(["mv", "raw/odd", "even"]) == Exit.OK
    assert run(["mv", "even/3.txt", "raw/1.txt"]) == Exit.USAGE
    assert run(["mv", "even/3.txt", "even/4.txt"]) == Exit.OK
    assert run(["commit", "-m", "Renamed"]) == Exit.OK
    assert ds.Dataset("declared").open("even/4.txt").read() == b"3"
    assert run(["mv", "nothing", "x"]) == Exit.NOT_FOUND


def test_commands_for_working_copies_say_so_outside_of_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    for arguments in (["checkout", "main"], ["restore", "x"], ["sparse", "list"]):
        assert run(arguments) == Exit.USAGE
    assert run(["clone", "nothing"]) == Exit.NOT_FOUND
    assert run(["clone", "./home"]) == Exit.USAGE
    assert run(["init", f"file://{home}/bare"]) == Exit.OK
    assert run(["clone", f"file://{home}/bare", "empty"]) == Exit.OK
    monkeypatch.chdir(home / "empty")
    assert run(["status"]) == Exit.OK
    write(home / "empty", {"a": "a"})
    run(["add", "a"])
    assert run(["commit", "-m", "First"]) == Exit.OK


def test_a_merge_is_checked_out(work: Path) -> None:
    run(["checkout", "-b", "side"])
    write(work, {"side": "side"})
    run(["add", "-A"])
    run(["commit", "-m", "On side"])
    run(["switch", "main"])
    write(work, {"main": "main"})
    run(["add", "-A"])
    run(["commit", "-m", "On main"])
    assert run(["merge", "side"]) == Exit.OK
    assert files(work)["side"] == "side"
    assert run(["status"]) == Exit.OK
    assert run(["reset", "--to", "HEAD~1"]) == Exit.OK
    assert "side" not in files(work)


def test_status_in_a_directory_names_files_from_there(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(work, {"images/1.png": "changed", "labels.csv": "changed", "images/new": "new", "other/new": "new"})
    assert run(["add", "labels.csv", "images/new"]) == Exit.OK
    monkeypatch.chdir(work / "images")
    assert short(capsys) == [" M 1.png", "A  new", "M  ../labels.csv", "?? ../other/new"]
    run(["status"])
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if line[1:3] == "  "] == ["A  new", "M  ../labels.csv", "M  1.png", "?  ../other/new"]
    run(["status", "--porcelain"])
    assert " M images/1.png" in capsys.readouterr().out.splitlines()
    run(["status", "--json"])
    found = json.loads(capsys.readouterr().out)["data"]
    assert (found["modified"], found["untracked"]) == (["images/1.png"], ["other/new"])


def diff(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    capsys.readouterr()
    assert run(["diff", *arguments]) == Exit.OK
    return capsys.readouterr().out.splitlines()


def test_diff_shows_what_is_not_staged_and_what_is(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert diff(capsys) == diff(capsys, "--staged") == []
    write(work, {"images/1.png": "staged", "labels.csv": "changed", "untracked": "x"})
    assert run(["add", "images/1.png"]) == Exit.OK
    write(work, {"images/1.png": "then changed again"})
    (work / "images/2.png").unlink()
    assert diff(capsys) == ["M  images/1.png", "D  images/2.png", "M  labels.csv"]
    assert diff(capsys, "--staged") == diff(capsys, "--cached") == ["M  images/1.png"]
    assert diff(capsys, "--staged", "--", "labels.csv") == []
    assert diff(capsys, "images") == diff(capsys, "--", "images") == ["M  images/1.png", "D  images/2.png"]
    monkeypatch.chdir(work / "images")
    assert diff(capsys, "../labels.csv", "--name-status") == ["M\tlabels.csv"]
    assert diff(capsys, "--stat") == [" 3 files changed: 0 added (+0 B), 2 modified, 1 deleted (-3 B)"]
    assert run(["diff", "--exit-code"]) == Exit.NO
    capsys.readouterr()
    assert run(["diff", "--json"]) == Exit.OK
    found = json.loads(capsys.readouterr().out)["data"]
    assert found["changes"][0] == {"path": "images/1.png", "op": "M", "old_size": 6, "new_size": 18}
    assert run(["diff", "--staged", "main~1..main"]) == Exit.NOT_FOUND
    assert run(["diff", "--staged", "main"]) == Exit.USAGE


def test_a_path_may_stand_where_a_revision_may(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(work, {"images/3.png": "three"})
    assert run(["add", "-A"]) == run(["commit", "-m", "Second"]) == Exit.OK
    capsys.readouterr()
    assert run(["log", "--oneline", "labels.csv"]) == Exit.OK
    assert [line[9:] for line in capsys.readouterr().out.splitlines()] == ["First"]
    (work / "labels.csv").unlink()  # git wants the dashes then; what is tracked is known
    assert run(["log", "--oneline", "labels.csv"]) == Exit.OK
    assert run(["branch", "images"]) == Exit.OK  # a revision goes before a path
    capsys.readouterr()
    assert run(["log", "--oneline", "images"]) == Exit.OK
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert run(["log", "nothing"]) == Exit.NOT_FOUND
    assert "if it is a path that is gone, write: -- nothing" in capsys.readouterr().err


def test_a_restored_directory_loses_tracked_files_that_the_version_lacks(work: Path) -> None:
    write(work, {"images/3.png": "three", "images/new/4.png": "four"})
    assert run(["add", "-A"]) == Exit.OK
    assert run(["commit", "-m", "Second"]) == Exit.OK
    write(work, {"images/untracked": "mine", "images/1.png": "changed"})
    assert run(["checkout", "main~1", "--", "images"]) == Exit.OK  # as git: this one only overlays
    assert "images/3.png" in files(work)
    assert run(["reset"]) == Exit.OK
    assert run(["restore", "-s", "main~1", "images"]) == Exit.OK
    assert files(work) == {
        "images/1.png": "one",
        "images/2.png": "two",
        "images/untracked": "mine",
        "labels.csv": "1,2",
    }
    assert not (work / "images/new").exists()
    assert run(["restore", "images"]) == Exit.OK
    assert "images/new/4.png" in files(work)


@pytest.mark.parametrize("command", ["add", "branch", "cat", "checkout", "diff", "log", "ls", "restore", "rm"])
def test_an_argument_that_is_not_utf_8_is_refused(command: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(work)
    capsys.readouterr()
    assert run([command, os.fsdecode(b"images/\xff")]) == Exit.USAGE
    assert "is not valid U" in capsys.readouterr().err
    assert files(work) == before
    assert short(capsys) == []
