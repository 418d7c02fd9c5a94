from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from ds.application import run

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = """\
apiVersion: forebay.dev/v1alpha1
kind: Dataset
metadata: {{name: notes}}
spec:
  repo: {{uri: "file://{directory}/repo"}}
"""


@dataclass
class Desk:
    """A dataset in a directory, and `ds` to run on it."""

    directory: Path
    capsys: pytest.CaptureFixture[str]
    code: int = 0
    err: str = ""

    def ds(self, *arguments: str, code: int = 0) -> str:
        self.capsys.readouterr()
        self.code = run(list(arguments))
        said = self.capsys.readouterr()
        self.err = said.err
        assert self.code == code, said
        return said.out

    def data(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.ds(*arguments, "--json", code=code))["data"]

    def lines(self, *arguments: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.ds(arguments[0], "--ndjson", *arguments[1:]).splitlines()]

    def write(self, path: str, text: str, *more: str) -> str:
        """Add a file, commit it, and return the commit."""
        file = self.directory / "files" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        parent = path.rpartition("/")[0]
        self.ds("add", str(file), *(["--to", parent] if parent else []))
        return str(self.data("commit", "-m", f"{path} is {text}", *more)["commit"])

    def text(self, path: str) -> str:
        return self.ds("cat", f"/{path}")

    def subjects(self, *arguments: str) -> list[str]:
        return [line.partition(" ")[2] for line in self.ds("log", "--oneline", *arguments).splitlines()]


@pytest.fixture(name="desk")
def _desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    monkeypatch.setenv("FOREBAY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FOREBAY_AUTHOR", "ada@example.org")
    (tmp_path / "dataset.yaml").write_text(MANIFEST.format(directory=tmp_path))
    made = Desk(tmp_path, capsys)
    made.ds("apply", "-f", str(tmp_path / "dataset.yaml"))
    made.write("a.txt", "1")
    made.write("d/b.txt", "1", "--meta", "ticket=DATA-1")
    return made


@pytest.fixture(name="diverged")
def _diverged(desk: Desk) -> Desk:
    """Main and side changed a.txt differently; side also has side.txt."""
    desk.ds("switch", "-c", "side")
    desk.write("a.txt", "theirs")
    desk.write("side.txt", "new")
    desk.ds("switch", "main")
    desk.write("a.txt", "ours")
    return desk


def test_log_takes_ranges_paths_and_metadata(diverged: Desk) -> None:
    assert diverged.subjects("main..side") == ["(side) side.txt is new", "a.txt is theirs"]
    assert len(diverged.subjects("main...side")) == 3
    assert diverged.subjects("side", "--", "d") == ["d/b.txt is 1"]
    assert diverged.subjects("notes@side", "-n", "1") == ["(side) side.txt is new"]
    assert diverged.subjects("notes", "-n", "1") == ["(main) a.txt is ours"]
    assert diverged.subjects("--meta", "ticket=DATA-1") == ["d/b.txt is 1"]
    assert diverged.subjects("main@{1}", "-n", "1") == ["d/b.txt is 1"]
    assert diverged.subjects("@{1}..") == ["(main) a.txt is ours"]
    assert diverged.subjects("main@{now}", "-n", "1") == ["(main) a.txt is ours"]
    diverged.ds("log", "main@{1 day ago}", code=3)
    assert [line["message"] for line in diverged.lines("log", "side", "--", "a.txt")] == [
        "a.txt is theirs",
        "a.txt is 1",
    ]
    diverged.ds("log", "nothing", code=3)
    diverged.ds("log", "a..b..c", code=3)
    diverged.ds("log", "other@main", code=3)


def test_diff_takes_ranges_paths_renames_and_forms(diverged: Desk) -> None:
    assert diverged.ds("diff", "main..side").splitlines() == ["M  a.txt", "A  side.txt"]
    assert diverged.ds("diff", "main..side", "--", "side.txt") == "A  side.txt\n"
    assert diverged.ds("diff", "side...main") == "M  a.txt\n"
    assert diverged.ds("diff", "main..side", "--name-status") == "M\ta.txt\nA\tside.txt\n"
    assert [line["op"] for line in diverged.lines("diff", "main..side")] == ["M", "A"]
    diverged.ds("diff", "main..side", "--exit-code", "--stat", code=1)
    diverged.ds("diff", "main..side", "--exit-code", "--", "d")
    diverged.ds("rm", "d/b.txt")
    diverged.write("e/b.txt", "1")
    assert diverged.ds("diff", "main~1..main").splitlines() == ["D  d/b.txt", "A  e/b.txt"]
    assert diverged.ds("diff", "main~1..main", "-M") == "R  d/b.txt -> e/b.txt\n"
    assert diverged.ds("diff", "main~1..main", "-M", "--name-status") == "R100\td/b.txt\te/b.txt\n"
    assert diverged.data("diff", "main~1..main", "-M")["changes"][0]["old_path"] == "d/b.txt"


def test_a_conflict_is_settled_and_the_merge_continued(diverged: Desk) -> None:
    diverged.ds("merge", "side", code=1)
    assert "ds resolve" in diverged.err
    assert diverged.text("a.txt") == "ours"
    assert "a.txt" in diverged.ds("conflicts", code=1)
    found = diverged.data("conflicts", code=1)
    assert (found["kind"], found["left"], found["conflicts"][0]["path"]) == ("merge", 1, "a.txt")
    diverged.ds("merge", "side", code=2)
    assert "is under way" in diverged.err
    diverged.ds("merge", "--continue", code=1)
    diverged.ds("resolve", "--theirs", "none", code=3)
    diverged.ds("resolve", "a.txt", code=2)
    diverged.ds("resolve", "--ours", "--theirs", "a.txt", code=2)
    diverged.ds("resolve", "--ours", code=2)
    mine = diverged.directory / "mine.txt"
    mine.write_text("both")
    assert "all conflicts are settled" in diverged.ds("resolve", "--file", str(mine), "a.txt")
    assert "file" in diverged.ds("conflicts")
    assert "merged" in diverged.ds("merge", "--continue")
    assert (diverged.text("a.txt"), diverged.text("side.txt")) == ("both", "new")
    assert diverged.ds("conflicts") == "no merge is under way on main\n"
    assert diverged.subjects("-n", "1") == ["(main) Merge side into main"]
    diverged.ds("merge", "--continue", code=2)


def test_a_merge_can_be_aborted_or_only_tried(diverged: Desk) -> None:
    head = diverged.ds("log", "-n", "1")
    plan = diverged.data("merge", "side", "--dry-run", code=1)
    assert [row["path"] for row in plan["changes"]] == ["side.txt"]
    assert [row["path"] for row in plan["conflicts"]] == ["a.txt"]
    assert "nothing was done" in diverged.ds("merge", "side", "-s", "ours", "--dry-run")
    assert diverged.data("conflicts") is None
    diverged.ds("merge", "side", code=1)
    assert "aborted" in diverged.ds("merge", "--abort")
    assert diverged.data("conflicts") is None
    assert diverged.ds("log", "-n", "1") == head
    diverged.ds("merge", "--abort", code=2)
    diverged.ds("merge", code=2)


@pytest.mark.parametrize(
    ("options", "expected"),
    [(["-s", "ours"], "ours"), (["-s", "theirs"], "theirs"), (["-X", "*.txt:theirs", "-X", "a.*:ours"], "ours")],
)
def test_a_strategy_settles_conflicts(diverged: Desk, options: list[str], expected: str) -> None:
    assert diverged.data("merge", "side", *options)["result"] == "merged"
    assert (diverged.text("a.txt"), diverged.text("side.txt")) == (expected, "new")


def test_attributes_in_the_tree_settle_conflicts(diverged: Desk) -> None:
    diverged.write(".ds/attributes", "*.txt merge=theirs\n")
    diverged.ds("merge", "side")
    assert diverged.text("a.txt") == "theirs"


@pytest.mark.parametrize("options", [["-s", "best"], ["-X", "ours"], ["--ff-only", "--squash"]])
def test_wrong_merge_options_are_refused(diverged: Desk, options: list[str]) -> None:
    diverged.ds("merge", "side", *options, code=2)


def test_merges_can_be_fast_only_never_fast_or_squashed(diverged: Desk) -> None:
    diverged.ds("merge", "side", "--ff-only", code=1)
    assert "merge without --ff-only" in diverged.err
    assert diverged.data("merge", "side", "--squash", "-s", "ours", "-m", "squashed")["result"] == "squashed"
    assert diverged.data("log", "-n", "1")[0]["parents"] == [diverged.data("log", "main~1", "-n", "1")[0]["commit"]]


def test_a_commit_is_reverted_and_picked(diverged: Desk) -> None:
    assert "reverted" in diverged.ds("revert", "HEAD")
    assert diverged.text("a.txt") == "1"
    assert diverged.subjects("-n", "1") == ['(main) Revert "a.txt is ours"']
    assert "picked" in diverged.ds("cherry-pick", "side")
    assert (diverged.text("a.txt"), diverged.text("side.txt")) == ("1", "new")
    diverged.ds("cherry-pick", "side", code=1)
    diverged.ds("cherry-pick", "side~1")
    diverged.ds("revert", "main~2", code=1)
    diverged.ds("resolve", "--all", "--ours")
    diverged.ds("revert", "--continue", code=1)  # with ours alone nothing is reverted
    assert diverged.data("conflicts") is None


def test_branches_are_protected_moved_and_renamed(diverged: Desk) -> None:
    diverged.ds("branch", "--protect", "side")
    assert "  side " in diverged.ds("branch")
    assert "(protected)" in diverged.ds("branch")
    assert diverged.data("branch")["protected"] == ["side"]
    for refused in (["-D", "side"], ["-m", "side", "x"], ["-f", "side", "side~1"]):
        diverged.ds("branch", *refused, code=5)
        assert "ds branch --unprotect side" in diverged.err
    diverged.ds("branch", "--unprotect", "side")
    diverged.ds("branch", "-f", "side", "side~1")
    assert diverged.subjects("side", "-n", "1") == ["(side) a.txt is theirs"]
    diverged.ds("branch", "-f", "main", "side", code=2)
    diverged.ds("branch", "-m", "main", "trunk")
    assert "* trunk" in diverged.ds("branch")
    diverged.ds("branch", "-m", "trunk", code=2)
    diverged.ds("branch", "--protect", code=2)
    diverged.ds("branch", "-D", "-f", "side", code=2)
    diverged.ds("tag", "v1")
    diverged.ds("tag", "--delete", "v1", code=2)
    assert "never deleted" in diverged.err


def test_a_reset_moves_the_branch_and_can_be_undone(diverged: Desk) -> None:
    moved = diverged.data("reset", "--to", "main~1")
    assert diverged.text("a.txt") == "1"
    assert diverged.data("log", "-n", "1")[0]["commit"] == moved["commit"]
    assert "back with: ds reset --to" in diverged.ds("reset", "--to", "main@{1}")
    assert diverged.text("a.txt") == "ours"
    diverged.ds("branch", "--protect", "main")
    diverged.ds("reset", "--to", "main~1", code=5)


def test_status_says_that_a_merge_is_under_way(diverged: Desk) -> None:
    assert diverged.data("status")["merge"] is None
    diverged.ds("merge", "side", code=1)
    assert diverged.data("status", code=1)["merge"]["left"] == 1
    assert "1 conflict left" in diverged.ds("status", code=1)


def test_the_reflog_names_what_is_lost(diverged: Desk) -> None:
    lines = diverged.ds("reflog").splitlines()
    assert [line.split(" ")[1] for line in lines] == ["main@{0}", "main@{1}", "main@{2}"]
    assert lines[0].endswith("ada@example.org: commit: a.txt is ours")
    lost = diverged.data("log", "side", "-n", "1")[0]["commit"]
    diverged.ds("branch", "-D", "side")
    assert "branch: deleted" in diverged.ds("reflog", "side", "-n", "1")
    diverged.ds("branch", "found", "side@{1}")
    assert diverged.data("branch")["branches"]["found"] == lost
    assert diverged.data("reflog", "main", "-n", "1")["moves"][0]["sequence"] == 3


def _on_a_terminal(desk: Desk, *arguments: str, **environment: str) -> str:
    """Run `ds` in a process whose stdout is a terminal."""
    ours, theirs = pty.openpty()
    try:
        code = "import sys; from ds.cli import main; sys.argv = ['ds', *sys.argv[1:]]; main()"
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            env={**os.environ, **environment},
        )
    finally:
        os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # how Linux says that the other end is closed
        pass
    finally:
        os.close(ours)
    assert process.wait(30) == 0
    return shown.decode()


def test_long_output_on_a_terminal_goes_through_the_pager(desk: Desk) -> None:
    pager = desk.directory / "pager"
    pager.write_text("#!/bin/sh\necho paged\ncat\n")
    pager.chmod(0o755)
    assert _on_a_terminal(desk, "log", "--oneline", PAGER=str(pager)).splitlines()[0] == "paged"
    assert "paged" not in _on_a_terminal(desk, "--no-pager", "log", PAGER=str(pager))
    for none in ("", "cat", str(desk.directory / "missing")):
        assert "d/b.txt is 1" in _on_a_terminal(desk, "log", PAGER=none)
    assert _on_a_terminal(desk, "log", PAGER="true") == ""
