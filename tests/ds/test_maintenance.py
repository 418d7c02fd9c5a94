from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from ds.application import run
from tests.ds.said import Said

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.ds.shop import Shop

    Command = Callable[..., Said]


@pytest.fixture
def say(shop: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `ds` on a dataset with three commits on main and a thrown-away branch."""
    monkeypatch.chdir(shop.directory)

    def command(*arguments: str) -> Said:
        capsys.readouterr()
        code = run(list(arguments))
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    for number in range(3):
        shop.write(f"d/{number}", b"%d" % number * 100, branch="main")
    assert command("branch", "side").code == 0
    shop.write("side", b"side" * 100, branch="side")
    assert command("branch", "-D", "side").code == 0
    return command


def stored(shop: Shop, folder: str) -> list[Path]:
    return sorted(each for each in (shop.directory / "repo" / folder).rglob("*") if each.is_file())


def test_a_check_says_what_it_checked_and_ends_in_1_on_findings(shop: Shop, say: Command) -> None:
    said = say("fsck", "--deep", "--external", "--incremental")
    assert said.code == 0, said
    assert "3 commits" in said.out
    assert said.out.endswith("all good\n")
    assert " known from before" in say("fsck", "--deep", "--incremental").out
    for pack in stored(shop, "packs"):
        os.truncate(pack, pack.stat().st_size - 1)
    said = say("fsck")
    assert said.code == 1
    assert "wrong-size  packs/" in said.out
    assert "refs/heads/main" in said.out
    said = say("fsck", "--json")
    assert said.code == 1
    document = json.loads(said.out)
    assert document["schema"] == "ds.fsck.v1"
    assert document["data"]["found"] == 3  # nothing needs the fourth
    finding = document["data"]["findings"][0]
    assert (finding["kind"], finding["path"][:2]) == ("wrong-size", "d/")
    assert finding["next_step"]


def test_garbage_goes_after_its_grace_period_or_at_once(shop: Shop, say: Command) -> None:
    live = say("gc", "--list-live").out.splitlines()
    before = len(stored(shop, "packs"))
    said = say("gc", "--dry-run")
    assert said.code == 0, said
    assert "nothing needs 0 objects" in said.out
    assert "nothing to condemn" in say("gc").out
    said = say("gc", "--now", "--json")
    assert said.code == 0, said
    assert json.loads(said.out)["data"]["deleted"]["packs"]["objects"] == 1
    assert len(stored(shop, "packs")) == before - 1
    assert "sweep" in say("gc", "--history").out
    assert say("fsck", "--deep").code == 0
    assert set(say("gc", "--list-live").out.splitlines()) < set(live)
    assert json.loads(say("gc", "--list-live", "--json").out.splitlines()[0])["key"].startswith("commits/")


def test_an_expired_history_ends_where_it_was_cut(shop: Shop, say: Command) -> None:
    assert "main: 1 commit would stay" in say("expire", "--keep", "1", "--dry-run").out
    assert len(say("log", "--oneline", "main").out.splitlines() or say("log", "--oneline").out.splitlines()) >= 1
    older = json.loads(say("log", "--json").out)["data"][1]["commit"]
    assert "nothing to cut off" in say("expire", "--keep", "30d", "--branch", "main").out
    said = say("expire", "--keep", "1", "--json")
    assert (said.code, json.loads(said.out)["data"]["kept"]) == (0, 1)
    said = say("log", "--oneline")
    assert len(said.out.splitlines()) == 1
    assert "older commits were cut off by ds expire" in said.err
    assert "cut off" not in say("log", "--json").err
    assert say("annotate", "/d/0").code == 0
    said = say("revert", "main")
    assert (said.code, "ds expire cut off what was before it" in said.err) == (1, True)
    said = say("branch", "back", older)
    assert (said.code, "cut off by ds expire" in said.err) == (3, True)
    assert say("gc", "--now").code == 0
    said = say("diff", f"{older}..main")
    assert said.code == 3
    assert say("annotate", "/d/0").code == 0
    assert len(stored(shop, "commits")) == 1
    assert say("fsck", "--deep").code == 0
    assert len(say("ls", "/d").out.splitlines()) == 3


def test_nothing_that_is_staged_here_is_collected_at_once(shop: Shop, say: Command) -> None:
    (shop.directory / "new").write_bytes(b"new" * 100)
    assert say("add", "new").code == 0
    said = say("gc", "--now")
    assert (said.code, "ds commit or ds reset first" in said.err) == (2, True)
    assert say("gc", "--now", "--dry-run").code == 0
    assert say("commit", "-m", "New").code == 0
    assert say("gc", "--now").code == 0
    assert say("fsck", "--deep").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["expire"], "say what to keep"),
        (["expire", "--keep", "0"], "keeps its last commit"),
        (["expire", "--keep", "soon"], "expected a time"),
        (["expire", "--keep", "3", "-b", "nowhere"], "no such branch: nowhere"),
        (["gc", "--grace", "5m"], "if nobody is: --now"),
        (["gc", "--grace", "7d", "--now"], "leave --grace out"),
        (["gc", "--dry-run", "--list-live"], "do not go together"),
    ],
)
def test_what_makes_no_sense_is_refused(say: Command, arguments: list[str], message: str) -> None:
    said = say(*arguments)
    assert said.code == 2
    assert message in said.err
