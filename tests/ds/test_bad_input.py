"""What a user may get wrong: one line that names it and the next step, the right code, and nothing left behind."""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from ds import application
from ds.cli import main
from ds.commands.lazy import LazyCommand
from ds.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from tests.ds.conftest import World
    from tests.ds.said import Said


def refused(said: Said, code: int, *words: str) -> None:
    """One line on stderr that says all the words, nothing on stdout, no traceback."""
    assert said.code == code, said
    assert said.out == ""
    assert said.err.startswith("ds: ")
    assert said.err.count("\n") == 1, said.err
    for word in words:
        assert word in said.err


def edited(world: World, old: str, new: str) -> str:
    text = world.manifest.read_text()
    assert old in text
    file = world.directory / "edited.yaml"
    file.write_text(text.replace(old, new, 1))
    return str(file)


def test_an_unknown_scheme(world: World) -> None:
    refused(world.ds("apply", "-f", edited(world, 'uri: "s3://', 'uri: "s4://')), 2, "unknown scheme 's4'", "s3://")


def test_a_missing_bucket(world: World) -> None:
    said = world.ds("apply", "-f", edited(world, 'uri: "s3://forebay-tests', 'uri: "s3://not-there'))
    refused(said, 3, "no such bucket: s3://not-there")


def test_an_absent_bucket_name(world: World) -> None:
    refused(world.ds("apply", "-f", edited(world, "s3://forebay-tests/", "s3:///")), 2, "the bucket is missing")


def test_wrong_keys(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    said = world.ds("apply", "-f", str(world.manifest))
    refused(said, 5, "refuses these credentials", "AWS_SECRET_ACCESS_KEY")
    assert "hunter2" not in said.err


def test_an_unreachable_endpoint(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        refused(world.ds("apply", "-f", str(world.manifest)), 69, "connection refused", "endpoint")


def test_a_directory_that_is_not_mounted(world: World) -> None:
    said = world.ds("apply", "-f", edited(world, '/labels"', '/not-mounted"'))
    refused(said, 3, "no such directory", "/not-mounted")


def test_a_failed_apply_records_nothing_and_may_be_run_again(world: World) -> None:
    world.ds("apply", "-f", edited(world, "s3://forebay-tests", "s3://not-there"))
    assert world.ok("get", "--json").data == []
    world.committed()


def test_a_wrong_field_of_the_manifest(world: World) -> None:
    refused(
        world.ds("apply", "-f", edited(world, "capacity:", "capcity:")), 2, "edited.yaml:16", "did you mean 'capacity'"
    )


def test_a_manifest_that_is_not_there(world: World) -> None:
    refused(world.ds("apply", "-f", "nowhere.yaml"), 2, "nowhere.yaml", "cannot read")


def test_a_cache_directory_that_cannot_be_made(world: World) -> None:
    (world.directory / "file").write_text("in the way")
    said = world.ds("apply", "-f", edited(world, '/cache"', '/file/cache"'))
    refused(said, 69, f"{world.directory}/file/cache")


def test_a_cache_directory_on_a_read_only_disk(world: World) -> None:
    refused(world.ds("apply", "-f", edited(world, f"{world.directory}/cache", "/proc/forebay")), 69, "/proc/forebay")


def test_a_cache_that_is_too_small(world: World) -> None:
    refused(world.ds("apply", "-f", edited(world, "64Mi", "1Mi")), 2, "1048576")


def test_a_dataset_that_does_not_exist(world: World) -> None:
    refused(world.ds("log"), 2, "no dataset yet", "ds apply -f dataset.yaml")
    refused(world.ds("log", "pets@main"), 3, "no dataset 'pets'", "ds apply")
    world.ok("apply", "-f", str(world.manifest))
    refused(world.ds("log", "cats@main"), 3, "no dataset 'cats'", "known here: pets")
    refused(world.ds("log", "ds://cats"), 3, "no dataset 'cats'", "known here: pets")
    refused(world.ds("ls", "images"), 3, "no dataset 'images'", "begins with a slash: /images")


def test_a_version_before_the_first_commit(world: World) -> None:
    world.ok("apply", "-f", str(world.manifest))
    for command in (["log"], ["load"], ["pack"], ["ls"], ["branch", "x"], ["diff", "main"]):
        refused(world.ds(*command), 3, "nothing was committed yet: ds import, then ds commit")
    assert world.ds("commit", "-m", "x").code == 1


def test_a_revision_path_or_branch_that_does_not_exist(world: World) -> None:
    world.committed()
    refused(world.ds("log", "pets@mian"), 3, "no such revision: mian", "did you mean main?")
    refused(world.ds("log", "pets@main~5"), 3, "main~5")
    refused(world.ds("ls", "pets@main/nothing"), 3, "no such path", "nothing")
    refused(world.ds("cat", "pets@main/images"), 2, "images", "directory")
    refused(world.ds("cat", "pets@main/nothing"), 3, "nothing")
    refused(world.ds("rm", "nothing"), 3, "no such path", "nothing")
    refused(world.ds("switch", "nothing"), 3, "no such branch")
    refused(world.ds("branch", "bad..name"), 2, "bad..name")
    refused(world.ds("branch", "main"), 2, "main exists already")
    refused(world.ds("merge", "nothing"), 3, "nothing")
    refused(world.ds("log", "Pets main"), 3, "no such revision: Pets main")
    refused(world.ds("ls", "Pets main"), 2, "such as digits@main/images")


def test_a_local_file_that_does_not_exist(world: World) -> None:
    world.committed()
    refused(world.ds("add", str(world.directory / "nothing.txt")), 3, "nothing.txt")


@pytest.mark.parametrize("deleted", [False, True])
def test_a_source_object_that_changed_since_the_commit(world: World, deleted: bool) -> None:
    world.committed()
    commit = world.ok("log", "--json").data[0]["commit"]
    if deleted:
        world.bucket.delete(f"{world.prefix}raw/0/00.png")
        (world.directory / "labels" / "01.json").unlink()
    else:
        world.put_image("0/00.png", b"image X")
        (world.directory / "labels" / "01.json").write_text("{}")
    since = f"the object changed since commit {commit[:8]}"
    for path in ("images/0/00.png", "labels/01.json"):
        refused(world.ds("cat", f"/{path}"), 1, since, path.rpartition("/")[2], 'run "ds import"')
    said = world.ds("load")
    assert said.code == 1
    assert f'{since}: run "ds import"' in said.err
    assert "00.png" in said.err
    assert "01.json" in said.err
    assert "Traceback" not in said.err
    refused(world.ds("pack"), 1, since, 'run "ds import"')
    world.ok("import")
    world.ok("commit", "-m", "what the sources have now")
    world.ok("load")


def test_a_source_that_lists_nothing_is_not_a_source_whose_files_were_deleted(world: World) -> None:
    world.committed()
    for file in (world.directory / "labels").iterdir():
        file.unlink()
    refused(world.ds("import"), 3, "mount 'labels' lists nothing", "ds rm labels")
    assert world.ok("status").code == 0
    world.ok("rm", "labels")
    world.ok("commit", "-m", "really gone")
    world.ok("import")


def test_a_conflict_names_the_paths(world: World) -> None:
    world.committed()
    world.ok("branch", "other")
    for branch in ("main", "other"):
        world.ok("switch", branch)
        (world.directory / "note.txt").write_text(branch)
        world.ok("add", str(world.directory / "note.txt"))
        world.ok("commit", "-m", branch)
    refused(world.ds("merge", "main"), 1, "1 path changed on both sides", "note.txt")
    assert world.ok("cat", "/note.txt").out == "other"


def test_a_full_cache_disk(world: World, small_disk: Path) -> None:
    world.put_image("large.png", os.urandom(6 << 20))
    file = edited(world, f"{world.directory}/cache", f"{small_disk}/cache")
    world.ok("apply", "-f", file)
    world.ok("import")
    world.ok("commit", "-m", "first")
    said = world.ds("load")
    assert said.code == 1
    assert "Traceback" not in said.err
    assert "No space left" in said.err or "full" in said.err
    assert len(world.ok("cat", "/labels/01.json").out) > 0  # reads go on, from the origin


def test_a_full_disk_under_the_stage(world: World, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world.committed()
    home = small_disk / "home"
    monkeypatch.setenv("FOREBAY_HOME", str(home))
    world.ok("apply", "-f", str(world.manifest))
    (small_disk / "filler").write_bytes(bytes(_free(small_disk) - 4096))
    world.put_image("5/50.png", b"new")
    refused(world.ds("import"), 69, str(home), "no room left")
    (small_disk / "filler").unlink()
    world.ok("import")
    world.ok("commit", "-m", "after the disk was cleared")


def test_options_that_do_not_fit_together(world: World) -> None:
    world.committed()
    refused(world.ds("load", "pets@main", "--diff", "main..main"), 2, "--diff")
    refused(world.ds("diff", "main..main..main"), 3, "expected A..B or A...B")
    refused(world.ds("pack", "--shard-size", "big"), 2, "--shard-size", "quantity")
    refused(world.ds("commit", "-m", "x", "--meta", "novalue"), 2, "KEY=VALUE")
    refused(world.ds("log", "pets", "-d", "cats"), 2, "leave one out")
    refused(world.ds("branch", "-D", "main"), 2, "ds switch")
    refused(world.ds("commit"), 2, "--message", "see: ds commit --help")
    refused(world.ds("lod"), 2, "lod", "see: ds --help")
    refused(world.ds("load", "--concurrency", "0"), 2, "--concurrency")


def test_what_cannot_be_added_is_named(world: World) -> None:
    world.committed()
    for name in ("a", "b"):
        (world.directory / name).mkdir()
        (world.directory / name / "same.txt").write_text(name)
    refused(world.ds("add", f"{world.directory}/a", f"{world.directory}/b"), 2, "a/same.txt", "b/same.txt", "--to")
    os.mkfifo(world.directory / "a" / "pipe")
    refused(world.ds("add", f"{world.directory}/a"), 3, "a/pipe", "no regular file")
    (world.directory / "b" / "loop").symlink_to("loop")
    refused(world.ds("add", f"{world.directory}/b"), 3, "b/loop")
    assert world.ok("status").code == 0


def test_a_path_that_does_not_exist_is_not_loaded_or_listed(world: World) -> None:
    world.committed()
    refused(world.ds("load", "/imgs"), 3, "no such path", "imgs")
    refused(world.ds("ls", "-R", "/imgs"), 3, "no such path", "imgs")
    refused(world.ds("ls", "-R", "--json"), 2, "--recursive")
    refused(world.ds("pack", "--shard-size", "0"), 2, "--shard-size")
    refused(world.ds("rm", ""), 3, "no such path")


def test_a_full_disk_under_the_catalog(world: World, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world.committed()
    home = small_disk / "home"
    monkeypatch.setenv("FOREBAY_HOME", str(home))
    world.ok("apply", "-f", str(world.manifest))
    (small_disk / "filler").write_bytes(bytes(_free(small_disk)))
    refused(world.ds("switch", "main"), 69, str(home), "FOREBAY_HOME")
    (small_disk / "filler").unlink()
    world.ok("switch", "main")


def test_a_bug_ends_in_its_own_code(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(application, "_invoke", lambda arguments: 1 // 0)
    monkeypatch.setattr(LazyCommand, "before_loading", [])  # this process keeps its pandas
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 70
    assert "internal error" in caplog.text


def test_a_user_without_a_name_commits_as_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr("getpass.getuser", unknown)
    assert Settings.of({}).author.startswith(f"uid{os.getuid()}@")


def test_no_command_shows_the_help(world: World) -> None:
    said = world.ds()
    assert (said.code, said.out) == (2, "")
    assert "Usage: ds" in said.err


def _free(directory: Path) -> int:
    stat = os.statvfs(directory)
    return stat.f_bavail * stat.f_frsize
