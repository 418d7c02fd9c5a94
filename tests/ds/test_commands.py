from __future__ import annotations

import json
from typing import TYPE_CHECKING

import fsspec
import pytest

import ds

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
    world.ok("delete", "cats")
    assert world.ok("log").out


@pytest.mark.parametrize("command", ["", "apply", "import", "add", "commit", "load", "pack", "merge", "cache status"])
def test_help_shows_examples(world: World, command: str) -> None:
    said = world.ok(*command.split(), "--help")
    assert "Usage: ds" in said.out
    assert not command or "Examples:\n    ds " in said.out
