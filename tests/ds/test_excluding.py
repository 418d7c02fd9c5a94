"""Objects that a mount's `exclude` leaves out of imports."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ds.dataset import Dataset
from sources.listing import journal as journals
from tests.conftest import BUCKET

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from tests.ds.conftest import World

MANIFEST = """\
apiVersion: forebay.dev/v1alpha1
kind: Dataset
metadata: {{name: pets}}
spec:
  mounts:
    - {{name: images, uri: "s3://{bucket}/{prefix}raw", path: images, exclude: {images}}}
    - {{name: labels, uri: "file://{directory}/labels", path: labels, exclude: {labels}}}
  repo: {{uri: "file://{directory}/repo"}}
"""


def apply(world: World, *, images: Sequence[str] = (), labels: Sequence[str] = ()) -> None:
    text = MANIFEST.format(
        bucket=BUCKET,
        prefix=world.prefix,
        directory=world.directory,
        images=json.dumps(list(images)),
        labels=json.dumps(list(labels)),
    )
    world.manifest.write_text(text)
    world.ok("apply", "-f", str(world.manifest))


def committed(world: World) -> set[str]:
    """Import, commit and return the paths below `images` and `labels`."""
    world.ok("import")
    world.ok("commit", "-m", "import")
    return {str(path) for table in Dataset("pets").tree().scan() for path in table.column("path").to_pylist()}


def test_what_matches_is_not_imported_and_counted(world: World) -> None:
    (world.directory / "labels" / "deep").mkdir()
    (world.directory / "labels" / "deep" / "x.tmp").write_text("x")
    apply(world, images=["/0/", "*1.png"], labels=["*", "!0?.json"])
    said = world.ok("import")
    assert "16 new or changed files staged" in said.out
    assert "9 objects left out by exclude" in said.out  # four of /0/, then 01, 11 of the images, and 3 labels
    data: dict[str, Any] = json.loads(world.ok("import", "--json").out)["data"]
    assert (data["upserts"], data["excluded"]) == (16, 9)


def test_what_is_excluded_later_is_gone_from_the_next_commit_and_comes_back(world: World) -> None:
    apply(world)
    assert "left out" not in world.ok("import").out
    before = committed(world)
    assert len(before) == 24
    apply(world, labels=["0*"])
    after = committed(world)
    assert before - after == {f"labels/0{number}.json" for number in range(10)}
    apply(world, labels=["0*", "!03.json"])
    assert committed(world) - after == {"labels/03.json"}
    apply(world)
    assert committed(world) == before


def test_a_mount_may_be_excluded_whole(world: World) -> None:
    """It lists objects, so its source is not away."""
    apply(world)
    committed(world)
    apply(world, images=["*"])
    assert {path.partition("/")[0] for path in committed(world)} == {"labels"}


def test_a_bucket_with_a_file_for_a_directory_is_refused_with_the_way_out(world: World) -> None:
    for name in ("it's a*", "it's a*/b", "it's a*/c", "it's a*.png"):
        world.put_image(name, name.encode())
    apply(world)
    said = world.ds("import")
    assert said.code == 2
    file, below = "['/it''s a\\*', '!/it''s a\\*/'] (the file)", "['/it''s a\\*/'] (what is below it)"
    assert f"exclude: {file} or exclude: {below}" in said.err
    assert "in mount 'images'" in said.err
    assert not Dataset("pets").stage().read().changes
    apply(world, images=["/it's a\\*", "!/it's a\\*/"])
    with_directory = committed(world)
    assert with_directory >= {"images/it's a*/b", "images/it's a*/c", "images/it's a*.png"}
    assert "images/it's a*" not in with_directory
    apply(world, images=["/it's a\\*/"])
    with_file = committed(world)
    assert with_directory ^ with_file == {"images/it's a*", "images/it's a*/b", "images/it's a*/c"}


def test_a_clash_with_what_was_imported_before_is_refused_by_the_commit(world: World) -> None:
    world.put_image("a", b"file")
    apply(world)
    committed(world)
    world.put_image("a/b", b"below")
    world.ok("import")
    said = world.ds("commit", "-m", "both")
    assert said.code != 0
    assert "leave one out by `exclude` of its mount in the dataset's YAML" in said.err
    apply(world, images=["/a", "!/a/"])
    assert {path for path in committed(world) if path.startswith("images/a")} == {"images/a/b"}


def test_an_import_that_goes_on_uses_the_patterns_of_now(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(world, images=["/0/"])
    made = journals.Journal.close

    def interrupt(self: journals.Journal) -> None:
        made(self)
        if self._path.name.startswith("images"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(journals.Journal, "close", interrupt)
        world.ds("import")
    apply(world, images=["/1/"])
    before = world.server.requests()
    said = world.ok("import")
    assert "going on with the import" in said.err
    assert world.server.requests() == before
    paths = {path for path in committed(world) if path.startswith("images/")}
    listed = {stat.key.removeprefix(f"{world.prefix}raw/") for stat in world.bucket.list(f"{world.prefix}raw/")}
    assert paths == {f"images/{path}" for path in listed if not path.startswith("1/")}


def test_a_clash_that_was_there_before_is_none_of_an_import(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions before 0.1 could make one; what is new beside it is refused all the same."""
    for name in ("a", "a/b"):
        world.put_image(name, b"before")
    apply(world)
    with monkeypatch.context() as patch:
        patch.setattr("dataset_controller.importing.find_clashes", lambda paths: [])
        patch.setattr("versioning.committing.check_no_clash", lambda tree, changes: None)
        committed(world)
    for name in ("a", "a/b"):
        world.put_image(name, b"after it")
    assert committed(world) >= {"images/a", "images/a/b"}
    for name in ("a", "a/b", "a/c"):
        world.put_image(name, b"and then")
    said = world.ds("import")
    assert said.code == 2
    assert "'images/a/c' cannot be a path: 'images/a' is a file" in said.err
