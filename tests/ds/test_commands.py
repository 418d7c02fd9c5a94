from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
import pytest

import ds
from ds.commands.options import complete_target

if TYPE_CHECKING:
    from tests.ds.conftest import World


def test_the_main_job(world: World) -> None:
    assert world.ok("apply", "-f", str(world.manifest)).out == "dataset/pets created\ncacheruntime/local created\n"
    assert "24 new or changed files staged on main" in world.ok("import").out
    assert world.ds("status").code == 1
    assert "24 files" in world.ok("commit", "-m", "first version").out
    assert "nothing to commit" in world.ok("status").out
    assert "0/\n1/\n2/\n" in world.ok("ls", "pets@main/images").out
    assert "verified: 24 objects" in world.ok("load", "pets@main").out
    assert "nothing was fetched" in world.ok("load", "pets@main").out
    assert "24 files with the same content" in world.ok("pack", "pets@main", "--shuffle", "--seed", "7").out
    stat = world.ok("diff", "main~1..main", "--json").data["stat"]
    assert (stat["added"], stat["modified"], stat["deleted"], stat["layout"]) == (0, 0, 0, 24)
    assert "nothing changed" in world.ok("import").out  # packing is no change of the sources
    world.ok("load")
    before = world.server.requests()
    samples = ds.Dataset("pets").shards("main", decode={"png": bytes})
    setup = world.server.requests()
    labels = {sample["__key__"]: sample["json"]["label"] for sample in samples.__getitems__(range(len(samples)))}
    assert labels == {f"{n:02}": n % 3 for n in range(12)}
    assert samples.stats().bytes_origin == 0
    assert world.server.requests() == setup > before


def test_a_branch_is_extended_loaded_by_difference_and_merged(world: World) -> None:
    world.committed().ok("load")
    world.ok("branch", "augment")
    world.ok("switch", "augment")
    added = world.directory / "added" / "images"
    added.mkdir(parents=True)
    (added / "90.png").write_bytes(b"rotated")
    assert "1 new or changed file staged on augment" in world.ok("add", str(world.directory / "added")).out
    world.ok("commit", "-m", "augmented")
    assert "A  images/90.png" in world.ok("diff", "main..augment").out
    assert world.ds("diff", "main..augment", "--exit-code").code == 1
    plan = world.ok("load", "--diff", "main..augment", "--dry-run", "--json").data
    assert (plan["total_objects"], plan["fetch_objects"]) == (1, 1)
    world.ok("load", "--diff", "main..augment")
    assert "nothing was fetched" in world.ok("load", "pets@augment").out
    world.ok("switch", "main")
    assert "fast-forward" in world.ok("merge", "augment").out
    assert world.ok("log", "--oneline").out.splitlines()[0].endswith("(augment, main) augmented")
    assert world.ok("cat", "pets@main/images/90.png").out == "rotated"


def test_an_import_follows_its_source(world: World) -> None:
    world.committed()
    world.put_image("0/00.png", b"changed")
    world.put_image("9/99.png", b"new")
    world.bucket.delete(f"{world.prefix}raw/1/01.png")
    world.ok("import")
    said = world.ds("status")
    assert said.code == 1
    assert [line for line in said.out.splitlines() if line[1:3] == "  "] == [
        "M  images/0/00.png",
        "D  images/1/01.png",
        "A  images/9/99.png",
    ]
    world.put_image("1/01.png", b"image 1" * 2)  # it is back as it was, and so the import forgets about it
    world.ok("import")
    assert "1 added, 1 modified, 0 deleted" in world.ds("status").out
    world.ok("commit", "-m", "second")
    assert world.ok("cat", "/images/0/00.png").out == "changed"
    assert world.ok("cat", "@main~1/labels/00.json").out == '{"label": 0}'


def test_what_was_staged_by_hand_survives_an_import(world: World) -> None:
    world.committed()
    (world.directory / "extra.txt").write_text("by hand")
    world.ok("add", str(world.directory / "extra.txt"), "--to", "images")
    world.ok("import")
    world.ok("commit", "-m", "by hand")
    assert "nothing changed" in world.ok("import").out
    world.ok("rm", "images/extra.txt")
    world.ok("import")
    world.ok("commit", "-m", "removed by hand")
    assert world.ds("cat", "/images/extra.txt").code == 3


def test_every_document_of_json_says_what_it_is(world: World) -> None:
    world.ok("apply", "-f", str(world.manifest), "--json")
    world.ok("import", "--json")
    for arguments, schema in (
        (["commit", "-m", "x", "--meta", "ticket=42", "--json"], "ds.commit.v1"),
        (["status", "--json"], "ds.status.v1"),
        (["log", "--json"], "ds.log.v1"),
        (["ls", "--json"], "ds.ls.v1"),
        (["get", "--json"], "ds.datasets.v1"),
        (["branch", "--json"], "ds.branches.v1"),
        (["tag", "--json"], "ds.tags.v1"),
        (["load", "--dry-run", "--json"], "ds.load-plan.v1"),
        (["load", "--json"], "ds.load.v1"),
        (["pack", "--json"], "ds.pack.v1"),
        (["diff", "main~1", "--json"], "ds.diff.v1"),
        (["cache", "status", "--json"], "ds.cache.v1"),
    ):
        said = world.ok(*arguments)
        assert json.loads(said.out)["schema"] == schema
        assert said.err == ""
    assert world.ok("log", "--json").data[-1]["meta"] == {"ticket": "42"}


def test_python_reads_a_version_through_the_cache(world: World) -> None:
    world.committed()
    world.ok("tag", "v1")
    assert ds.Dataset("pets").load("v1").verified
    with ds.open("ds://pets@v1/labels/07.json") as file:
        assert json.load(file) == {"label": 1}
    files = fsspec.filesystem("ds")
    assert files.ls("pets@v1/images", detail=False) == [f"pets@v1/images/{n}" for n in range(3)]
    assert len(files.glob("ds://pets@v1/images/*/*.png")) == 12
    assert files.cat("ds://pets@v1/labels/07.json") == b'{"label": 1}'
    with fsspec.open("ds://pets@v1/labels/07.json", "r") as file:
        assert file.read() == '{"label": 1}'
    with pytest.raises(FileNotFoundError):
        files.info("ds://pets@v1/nothing")


def test_two_datasets_are_told_apart(world: World) -> None:
    world.committed()
    world.manifest.write_text(world.manifest.read_text().replace("name: pets", "name: cats").replace('repo"', 'repo2"'))
    world.ok("apply", "-f", str(world.manifest))
    said = world.ds("log")
    assert said.code == 2
    assert "which dataset? use -d or FOREBAY_DATASET; known: cats, pets" in said.err
    assert world.ok("log", "-d", "pets").out
    assert world.ok("log", "pets").out
    assert "unchanged" in world.ok("apply", "-f", str(world.manifest)).out
    for stat in list(world.bucket.list(f"{world.prefix}repo2/")):
        world.bucket.delete(stat.key)
    said = world.ds("get", "--json")
    assert (said.code, [row["name"] for row in said.data]) == (3, ["pets"])
    assert "dataset cats: no repository" in said.err
    world.ok("delete", "cats")
    assert world.ok("log").out


@pytest.mark.parametrize("command", ["", "apply", "import", "add", "commit", "load", "pack", "merge", "cache status"])
def test_help_shows_examples(world: World, command: str) -> None:
    said = world.ok(*command.split(), "--help")
    assert "Usage: ds" in said.out
    assert not command or "Examples:\n    ds " in said.out


def test_a_repository_below_a_mount_is_no_part_of_the_dataset(world: World) -> None:
    text = world.manifest.read_text().replace(f"{world.prefix}raw", world.prefix).replace("/repo", "/in/repo")
    world.manifest.write_text(text)
    world.committed()
    assert world.ok("ls", "/images").out == "raw/\n"
    assert "nothing changed" in world.ok("import").out


def test_a_mount_that_moved_is_read_from_where_it_is(world: World) -> None:
    world.committed()
    (world.directory / "labels").rename(world.directory / "moved")
    world.manifest.write_text(world.manifest.read_text().replace('/labels"', '/moved"'))
    world.ok("apply", "-f", str(world.manifest))
    assert "12 new or changed files" in world.ok("import").out
    world.ok("commit", "-m", "moved")
    assert world.ok("diff", "main~1", "--json").data["stat"]["layout"] == 12
    assert world.ok("cat", "/labels/07.json").out == '{"label": 1}'


def test_a_mount_that_lists_nothing_is_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.manifest.write_text(world.manifest.read_text().replace('raw"', 'typo"'))
    world.committed()
    assert "mount images lists nothing" in caplog.text


def test_what_was_staged_for_another_repository_is_not_committed_to_this_one(world: World) -> None:
    world.committed()
    world.put_image("5/50.png", b"new")
    world.ok("import")
    for stat in list(world.bucket.list(f"{world.prefix}repo/")):
        world.bucket.delete(stat.key)
    said = world.ds("status")
    assert said.code == 3
    assert "ds apply" in said.err
    assert "unchanged" in world.ok("apply", "-f", str(world.manifest)).out  # and makes the repository
    assert "nothing to commit" in world.ok("status").out
    world.ok("import")
    assert "25 files" in world.ok("commit", "-m", "anew").out


def test_an_import_does_not_hide_that_a_file_added_by_hand_was_changed_by_others(world: World) -> None:
    note = world.directory / "note.txt"
    world.committed()
    note.write_text("mine")
    world.ok("add", str(note))
    world.ok("branch", "other")
    world.ok("switch", "other")
    note.write_text("theirs")
    world.ok("add", str(note))
    world.ok("commit", "-m", "theirs")
    ds.Dataset("pets").repository.merge(ds.Dataset("pets").resolve("other"), "main", author="eve")
    world.ok("switch", "main")
    world.put_image("5/50.png", b"new")
    world.ok("import")
    said = world.ds("commit", "-m", "mine")
    assert said.code == 1
    assert "ds reset" in said.err
    assert "2 new or changed files" in world.ok("reset").out
    assert "nothing to commit" in world.ok("status").out
    world.ok("import")
    world.ok("commit", "-m", "images")
    assert world.ok("cat", "/note.txt").out == "theirs"


def test_what_others_committed_already_is_staged_no_more(world: World) -> None:
    world.committed()
    world.put_image("5/50.png", b"new")
    world.ok("import")
    stage = ds.Dataset("pets").stage()
    staged = stage.path.read_bytes()
    world.ok("commit", "-m", "once")
    stage.path.write_bytes(staged)  # as after a crash between the commit and the end of the command
    assert world.ds("commit", "-m", "twice").code == 1
    assert world.ok("reset").out == "nothing is staged on main now (nothing was)\n"


def test_a_path_names_a_file_or_a_directory_and_nothing_that_begins_like_it(world: World) -> None:
    world.put_image("0.png", b"a file beside the directory of its name")
    world.put_image("01/x.png", b"x")
    world.committed()
    assert world.ok("load", "pets/images/0", "--dry-run", "--json").data["total_objects"] == 4
    assert world.ok("load", "pets/images/0/", "--dry-run", "--json").data["total_objects"] == 4
    assert world.ok("load", "/images/0/00.png", "--dry-run", "--json").data["total_objects"] == 1
    assert world.ok("ls", "/images/0/00.png").out == "images/0/00.png\n"
    assert world.ok("ls", "-R", "/images/01").out == "images/01/x.png\n"
    assert "4 deleted files" in world.ok("rm", "images/0").out
    world.ok("commit", "-m", "fewer")
    assert world.ok("load", "/images/01", "--diff", "main~1..main", "--dry-run", "--json").data["total_objects"] == 0


def test_what_was_only_staged_is_removed_again(world: World) -> None:
    world.ok("apply", "-f", str(world.manifest))
    world.ok("import")
    world.ok("rm", "labels")
    assert "12 files" in world.ok("commit", "-m", "images").out


def test_a_pack_says_which_branch_it_went_to(world: World) -> None:
    world.committed().ok("branch", "feature/x")
    assert world.ok("pack", "pets@feature%2Fx").out.startswith("[feature/x ")
    assert world.ok("pack", "pets@feature%2Fx").out.startswith("nothing to pack: feature/x ")
    assert complete_target("pets@fea") == ["pets@feature%2Fx"]


def test_names_are_printed_as_they_are(world: World) -> None:
    world.put_image(":key:", b"1")
    world.put_image("[bold]x", b"2")
    world.committed()
    assert {line.split()[-1] for line in world.ok("ls", "/images", "-l").out.splitlines()} >= {":key:", "[bold]x"}
    assert world.ds("cat", "/:cat:").err.endswith(":cat:\n")


def run_ds(arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a shell's command line with `ds` and a buffered stdout, as a user has it."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    bins = f"{Path(sys.executable).parent}:{env['PATH']}"
    command = ["bash", "-o", "pipefail", "-c", arguments]
    return subprocess.run(command, env={**env, "PATH": bins, **environment}, capture_output=True, timeout=60)


def test_output_goes_wherever_it_can(world: World) -> None:
    world.put_image("ü", b"1")
    world.committed()
    for command in ("ds ls -l", "ds ls -R", "ds status --json"):
        piped = run_ds(f"{command} | true")
        assert (piped.returncode, piped.stderr) == (0, b"")
    assert b"\\xfc" in run_ds("ds ls /images", PYTHONIOENCODING="ascii").stdout
    assert {row["name"] for row in json.loads(run_ds("ds ls /images --json", PYTHONIOENCODING="ascii").stdout)["data"]}
    full = run_ds("ds ls > /dev/full")
    assert (full.returncode, full.stderr) == (69, b"ds: cannot write the output: No space left on device\n")
