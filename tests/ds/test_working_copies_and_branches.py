"""Whatever moves the branch of a working copy: its files follow, and nothing that was changed there is lost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from ds.application import run
from ds.exits import Exit
from ds.worktree import WorkingDataset
from versioning import NothingToCommitError
from versioning.worktree import WorkingCopy

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working copy on main; side changed a.txt and added side.txt, main changed a.txt and b.txt."""
    monkeypatch.setenv("FOREBAY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FOREBAY_AUTHOR", "Ada <ada@example.org>")
    monkeypatch.delenv("FOREBAY_DATASET", raising=False)
    root = tmp_path / "shop"
    root.mkdir()
    monkeypatch.chdir(root)
    ok("init")
    commit(root, "First", {"a.txt": "1", "b.txt": "1", "d/c.txt": "1"})
    ok("checkout", "-b", "side")
    commit(root, "On side", {"a.txt": "side", "side.txt": "side"})
    ok("switch", "main")
    commit(root, "On main", {"b.txt": "main"})
    return root


def ok(*arguments: str) -> None:
    assert run(list(arguments)) == Exit.OK, arguments


def write(root: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def commit(root: Path, message: str, files: dict[str, str]) -> None:
    write(root, files)
    ok("add", "-A")
    ok("commit", "-m", message)


def text(root: Path, path: str) -> str:
    return (root / path).read_text()


MOVES = {
    "merge": (["merge", "side"], "a.txt"),
    "fast-forward": (["merge", "ahead"], "b.txt"),
    "cherry-pick": (["cherry-pick", "side"], "a.txt"),
    "revert": (["revert", "HEAD"], "b.txt"),
    "reset": (["reset", "--to", "HEAD~1"], "b.txt"),
}


@pytest.mark.parametrize("move", MOVES)
def test_a_move_that_would_overwrite_a_change_is_refused_before_the_branch_moves(work: Path, move: str) -> None:
    arguments, path = MOVES[move]
    ok("checkout", "-b", "ahead")
    commit(work, "Ahead", {"b.txt": "ahead"})
    ok("switch", "main")
    before = WorkingDataset(work).repository.head("main")
    write(work, {path: "mine", "d/c.txt": "mine, too"})
    assert run(arguments) == Exit.NO
    ok("add", path)
    assert run(arguments) == Exit.NO
    assert WorkingDataset(work).repository.head("main") == before == WorkingDataset(work).head()
    assert text(work, path) == "mine"
    ok("restore", "--staged", path)
    ok("restore", path)
    ok(*arguments)
    assert WorkingDataset(work).repository.head("main") == WorkingDataset(work).head() != before
    assert text(work, path) != "mine"
    assert text(work, "d/c.txt") == "mine, too"  # the change of another file stays
    assert WorkingDataset(work).status().modified == ["d/c.txt"]


def test_an_untracked_file_is_not_overwritten_by_a_merge(work: Path) -> None:
    write(work, {"side.txt": "mine"})
    assert run(["merge", "side"]) == Exit.NO
    assert text(work, "side.txt") == "mine"
    write(work, {"side.txt": "side"})  # what the merge brings anyway
    ok("merge", "side")
    assert run(["status"]) == Exit.OK


def test_a_settled_merge_waits_until_the_file_in_its_way_is_away(work: Path) -> None:
    commit(work, "Too", {"a.txt": "main"})
    assert run(["merge", "side"]) == Exit.NO
    ok("resolve", "--theirs", "./a.txt")
    write(work, {"side.txt": "mine"})
    assert run(["merge", "--continue"]) == Exit.NO
    (work / "side.txt").unlink()
    ok("merge", "--continue")
    assert (text(work, "a.txt"), text(work, "side.txt")) == ("side", "side")
    assert run(["status"]) == Exit.OK


def test_a_merge_is_continued_on_its_own_branch_only(work: Path) -> None:
    commit(work, "Too", {"a.txt": "main"})
    assert run(["merge", "side"]) == Exit.NO
    ok("resolve", "--ours", "--all")
    ok("switch", "side")
    assert run(["merge", "--continue"]) == Exit.USAGE
    ok("switch", "main")
    ok("merge", "--continue")


def test_what_others_committed_just_so_is_checked_out(work: Path, tmp_path: Path) -> None:
    ok("clone", str(work), str(tmp_path / "other"))
    mine, other = WorkingDataset(work), WorkingDataset(tmp_path / "other")
    write(other.root, {"new": "new"})
    other.add_changed(untracked=True)
    theirs = other.commit("Theirs")
    write(work, {"new": "new"})
    mine.add_changed(untracked=True)
    with pytest.raises(NothingToCommitError):
        mine.commit("Mine")
    assert mine.head() == theirs
    mine.checkout("main~1")
    assert not (work / "new").exists()


def test_a_kill_after_the_commit_takes_no_file_for_one_of_another_version(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(work, {"new": "new"})
    ok("add", "-A")
    with monkeypatch.context() as patched:
        patched.setattr(WorkingCopy, "update", _killed)
        with pytest.raises(KeyboardInterrupt):
            WorkingDataset(work).commit("Killed")
    ok("checkout", "main")
    assert run(["status"]) == Exit.OK
    ok("checkout", "main~1")
    assert not (work / "new").exists()


def _killed(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


def test_a_staged_file_that_no_version_has_is_not_deleted(work: Path) -> None:
    write(work, {"precious": "x"})
    ok("add", "precious")
    assert run(["rm", "precious"]) == Exit.NO
    assert text(work, "precious") == "x"
    ok("rm", "--cached", "precious")
    assert text(work, "precious") == "x"


def test_ignored_files_below_a_named_directory_stay_ignored(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(work, {".dsignore": "*.log\n", "d/x.log": "", "d/new": "", "d/.git/config": "", "d/.ds/local/lock": ""})
    ok("add", "d")
    capsys.readouterr()
    run(["status", "-s"])
    assert capsys.readouterr().out.splitlines() == ["A  d/new", "?? .dsignore"]


def test_paths_are_relative_to_where_one_is(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(work / "d")
    capsys.readouterr()
    ok("ls")
    ok("cat", "c.txt")
    ok("cat", "/a.txt")
    assert capsys.readouterr().out == "c.txt\n11"
    ok("log", "--oneline", "--", "c.txt")
    assert capsys.readouterr().out.endswith("First\n")
    ok("diff", "side..main", "--name-status", "--", "../a.txt")
    assert capsys.readouterr().out == "M\ta.txt\n"


def test_a_detached_head_can_be_looked_at_and_added_to(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ok("checkout", "HEAD~1")
    capsys.readouterr()
    ok("branch")
    assert "HEAD detached" in capsys.readouterr().out
    write(work, {"new": "new"})
    ok("add", "-A")
    ok("reset")
    assert run(["commit", "-m", "x"]) == Exit.USAGE


def test_nothing_is_made_up_of_names_that_are_not_there(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["reflog", "sied"]) == Exit.NOT_FOUND
    assert run(["commit", "-m", " "]) == Exit.USAGE
    ok("merge", "side", "--no-ff")
    assert run(["revert", "HEAD"]) == Exit.USAGE
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    ok("init")
    assert run(["switch", "nothing"]) == Exit.NOT_FOUND
    capsys.readouterr()
    ok("switch", "-c", "trunk", "--json")
    assert json.loads(capsys.readouterr().out)["data"] == {"branch": "trunk", "commit": None}
    commit(tmp_path / "empty", "First", {"a": "a"})
    assert list(WorkingDataset(tmp_path / "empty").repository.branches()) == ["trunk"]
