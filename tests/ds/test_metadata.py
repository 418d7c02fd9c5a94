"""Commands about what commits say: lineage, show, stat, annotate, cp, pins, hooks, signatures."""

from __future__ import annotations

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from ds.application import run
from tests.ds.test_history_commands import MANIFEST, Desk
from tests.services import ssh
from tests.services.requiring import require

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(name="memory")
def _memory() -> Iterator[Path]:
    """A directory that waits for no disk."""
    with TemporaryDirectory(dir="/dev/shm") as directory:
        yield Path(directory)


@pytest.fixture(name="desk")
def _desk(memory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    """Datasets notes and more; the current directory is in no git repository."""
    monkeypatch.setenv("FOREBAY_HOME", str(memory / "home"))
    monkeypatch.setenv("FOREBAY_AUTHOR", "Ada <ada@example.org>")
    for name in ("FOREBAY_SIGN", "FOREBAY_SIGNING_KEY", "FOREBAY_ALLOWED_SIGNERS", "FOREBAY_DATASET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(memory.parent))
    monkeypatch.chdir(memory)
    (memory / "dataset.yaml").write_text(MANIFEST.format(directory=memory))
    made = Desk(memory, capsys)
    made.ds("apply", "-f", "dataset.yaml")
    made.write("a.txt", "1")
    made.write("d/b.txt", "22", "--meta", "ticket=DATA-1")
    return made


def other_dataset(desk: Desk) -> str:
    """Declare a dataset made from notes; return the commit of notes."""
    text = MANIFEST.format(directory=desk.directory / "more").replace("notes", "more")
    (desk.directory / "more.yaml").write_text(text)
    used = str(desk.data("log", "-n", "1")[0]["commit"])
    desk.ds("apply", "-f", "more.yaml")
    (desk.directory / "e.txt").write_text("e")
    desk.ds("add", "e.txt", "-d", "more")
    desk.ds("commit", "-m", "made", "-d", "more", "--input", "ds://notes@main/d", "--param", "lr=0.1")
    return used


def test_inputs_are_pinned_and_shown_as_a_tree(desk: Desk) -> None:
    used = other_dataset(desk)
    found = desk.data("lineage", "more@main")
    assert found["params"] == {"lr": "0.1"}
    assert [each["uri"] for each in found["inputs"]] == [f"ds://notes@{used}/d"]
    assert f"└─ ds://notes@{used}/d" in desk.ds("lineage", "-d", "more")
    desk.ds("delete", "notes")
    assert "knows no such dataset" in desk.ds("lineage", "more@main")


@pytest.mark.parametrize(
    ("text", "code"),
    [("notes@main", 2), ("ds://", 2), ("ds://nobody@main", 3), ("ds://notes@gone", 3), ("ds://notes@main/x", 3)],
)
def test_an_input_that_is_not_there_is_refused(desk: Desk, text: str, code: int) -> None:
    (desk.directory / "e.txt").write_text("e")
    desk.ds("add", "e.txt")
    desk.ds("commit", "-m", "m", "--input", text, code=code)
    assert "staged" in desk.ds("status", code=1)


def test_the_code_is_the_git_commit_of_the_current_directory(desk: Desk) -> None:
    (desk.directory / "code.py").write_text("1")
    desk.ds("add", "code.py")
    desk.ds("commit", "-m", "m", "--code", code=2)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a"]
    for arguments in (["init", "-q"], ["add", "code.py"], ["commit", "-q", "-m", "m"]):
        subprocess.run([*git, *arguments], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    desk.ds("commit", "-m", "clean", "--code")
    (desk.directory / "code.py").write_text("2")
    desk.write("e.txt", "e", "--code")
    assert [each["lineage"] for each in desk.data("log", "-n", "2")] == [
        {"code": {"git": head, "dirty": True}},
        {"code": {"git": head, "dirty": False}},
    ]
    assert head in desk.ds("log", "-n", "1", "--details")


def test_show_takes_a_commit_or_a_path_in_it(desk: Desk) -> None:
    shown = desk.ds("show")
    assert "ticket = DATA-1" in shown
    assert "A  d/b.txt" in shown
    assert desk.data("show", "main~1")["changes"] == [{"path": "a.txt", "op": "A", "old_size": None, "new_size": 1}]
    assert desk.data("show", "main:d/b.txt") == desk.data("stat", "notes@main/d/b.txt")
    assert desk.data("show", "main@{now}:d")["files"] == 1
    assert desk.data("stat", "@main")["size"] == 3
    desk.ds("show", "main:nothing", code=3)
    desk.ds("show", "nothing", code=3)


def test_annotate_names_the_last_commit_of_each_path(desk: Desk) -> None:
    again = desk.write("a.txt", "2")
    found = {each["path"]: each["commit"] for each in desk.data("annotate")}
    assert found["a.txt"] == again
    assert found["d/b.txt"] == desk.data("log", "main~1", "-n", "1")[0]["commit"]
    assert desk.ds("annotate", "/d").endswith("(Ada <ada@example.org>) d/b.txt\n")
    desk.ds("annotate", "/nothing", code=3)


def test_cp_writes_files_and_directories(desk: Desk) -> None:
    desk.write("d/e/c.txt", "333")
    assert desk.data("cp", "notes@main:d", "out") == {"files": 2, "bytes": 5}
    desk.ds("cp", "@main/a.txt", "out")
    desk.ds("cp", "/d", "out")
    desk.ds("cp", "@main", "everything")
    files = {str(each.relative_to(desk.directory)) for each in (desk.directory / "out").rglob("*") if each.is_file()}
    assert files == {"out/b.txt", "out/e/c.txt", "out/a.txt", "out/d/b.txt", "out/d/e/c.txt"}
    assert (desk.directory / "everything/d/e/c.txt").read_text() == "333"
    desk.ds("cp", "/d", "out/a.txt", code=2)
    desk.ds("cp", "/nothing", "x", code=3)
    desk.ds("cp", "/a.txt", "out/a.txt/b", code=69)


def test_pins_are_made_listed_and_forgotten(desk: Desk) -> None:
    desk.ds("pin", "run-1", "main~1")
    desk.ds("pin", "run-1", "main~1")
    desk.ds("pin", "run-1", code=2)
    desk.ds("pin", "bad..name", code=2)
    assert list(desk.data("pins")) == ["run-1"]
    assert desk.subjects("refs/pins/run-1") == ["a.txt is 1"]
    desk.ds("unpin", "run-1")
    desk.ds("unpin", "run-1", code=3)
    assert desk.ds("pins") == ""


def test_a_refused_commit_keeps_what_is_staged(desk: Desk) -> None:
    hooks = "hooks: [{id: layout, allowed_globs: ['*.txt']}, {id: lint, run: ['false'], paths: ['*.csv']}]"
    desk.write(".ds/hooks.yaml", hooks)
    assert "lint" in desk.ds("hooks", "list")
    (desk.directory / "x.bin").write_text("x")
    desk.ds("add", "x.bin")
    assert desk.data("hooks", "run", code=5)["hooks"][0]["findings"] == [["x.bin", ""]]
    desk.ds("commit", "-m", "m", code=5)
    assert "layout" in desk.err
    assert "x.bin" in desk.err
    assert "staged" in desk.ds("status", code=1)
    desk.ds("commit", "-m", "m", "--no-verify")
    assert desk.data("log", "-n", "1")[0]["hooks"][0] == {"id": "layout", "result": "skipped"}


def test_commands_run_once_they_are_trusted(desk: Desk) -> None:
    desk.write(".ds/hooks.yaml", "hooks: [{id: lint, run: ['sh', '-c', 'echo a.txt; exit 1']}]")
    (desk.directory / "a.txt").write_text("x")
    desk.ds("add", "a.txt")
    desk.ds("commit", "-m", "m", code=5)
    assert "ds hooks trust" in desk.err
    assert desk.data("hooks", "run", code=5)["hooks"][0]["result"] == "untrusted"
    desk.ds("hooks", "trust")
    desk.ds("commit", "-m", "m", code=5)
    assert "\n  a.txt" in desk.err
    desk.ds("hooks", "trust", "--revoke")
    desk.ds("commit", "-m", "m", code=5)
    assert "ds hooks trust" in desk.err
    desk.ds("hooks", "trust", "main~1", code=2)


def test_signatures_are_made_and_checked(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    require(ssh.missing())
    key = desk.directory / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    (desk.directory / "e.txt").write_text("e")
    desk.ds("add", "e.txt")
    desk.ds("commit", "-m", "m", "--sign", code=69)
    desk.ds("commit", "-m", "m", "--sign", "--key", str(key))
    assert desk.data("verify-commit", "main", "main~1")[0]["verdict"] == "unknown key"
    (desk.directory / "home" / "allowed_signers").write_text(f"ada@example.org {key.with_suffix('.pub').read_text()}")
    assert desk.ds("verify-commit", "main").split()[1] == "good,"
    desk.ds("verify-commit", "main", "--require")
    desk.ds("verify-commit", "main~1")
    desk.ds("verify-commit", "main~1", "--require", code=1)
    desk.ds("log", "--verify")
    desk.ds("log", "--verify", "--require", "--oneline", code=1)
    monkeypatch.setenv("FOREBAY_SIGN", "1")
    monkeypatch.setenv("FOREBAY_SIGNING_KEY", str(key))
    desk.write("f.txt", "f")
    assert [each["verified"]["verdict"] for each in desk.data("log", "--verify", "-n", "3")] == [
        "good",
        "good",
        "unsigned",
    ]


def test_hooks_of_a_working_copy_run_in_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["clone", "notes", "copy"]) == 0
    copy = desk.directory / "copy"
    (copy / ".ds" / "hooks.yaml").write_text("hooks: [{id: here, run: [sh, check.sh]}]")
    (copy / "check.sh").write_text("pwd > ../seen; cat >> ../seen")
    monkeypatch.chdir(copy)
    desk.ds("add", "-A")
    desk.ds("commit", "-m", "hooks")
    desk.ds("hooks", "trust")
    (copy / "a.txt").write_text("changed")
    desk.ds("commit", "-a", "-m", "m")
    directory, line = (desk.directory / "seen").read_text().splitlines()
    assert (directory, '"path":"a.txt"' in line) == (str(copy), True)
