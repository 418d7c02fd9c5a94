"""Real programs read a mounted version as they read a disk."""

from __future__ import annotations

import mmap
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.services.requiring import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.ds.cached_shop import CachedShop

SECONDS = 60
COLOURS = ("red", "blue")


@pytest.fixture
def lake(shop: CachedShop) -> Path:
    """Return the directory that is the source, with files that programs know."""
    from PIL import Image

    source = shop.directory / "raw"
    for number, colour in enumerate(COLOURS):
        (source / "images" / colour).mkdir(parents=True)
        for each in range(3):
            Image.new("RGB", (20 + each, 10), colour).save(source / "images" / colour / f"{number}{each}.png")
    np.save(source / "array.npy", np.arange(1_000_000, dtype=np.int32))
    with sqlite3.connect(source / "table.sqlite") as database:
        database.execute("create table t (a integer, b text)")
        database.executemany("insert into t values (?, ?)", ((n, str(n)) for n in range(5_000)))
    database.close()
    work = {"cwd": source, "check": True, "capture_output": True, "timeout": SECONDS}
    for command in (["init", "-q"], ["add", "images"], ["commit", "-qm", "Images"]):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "gc.auto=0"]
        subprocess.run(["git", *identity, *command], **work)  # type: ignore[call-overload]
    subprocess.run(["find", source, "-type", "d", "-empty", "-delete"], check=True, timeout=SECONDS)
    return source  # a version has no empty directories


@pytest.fixture
def mounted(shop: CachedShop, point: Path, lake: Path) -> Iterator[Path]:
    """Return a mount of all of that."""
    shop.ok("import")
    shop.ok("commit", "-m", "Files of programs")
    shop.ok("mount", "pets@main", os.fspath(point), "--background")
    yield point
    shop.ok("umount", os.fspath(point), "--lazy")


def output(*command: str | Path, cwd: Path | None = None) -> str:
    """Return what a program says; it must succeed."""
    done = subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True, timeout=SECONDS)
    return done.stdout


def test_programs_of_the_shell_see_the_same_files(mounted: Path, lake: Path, tmp_path: Path) -> None:
    names = ["find", ".", "-type", "f", "-printf", "%P %s\n"]
    assert sorted(output(*names, cwd=mounted).splitlines()) == sorted(output(*names, cwd=lake).splitlines())
    sums = output("sh", "-c", "find . -type f -exec md5sum {} +", cwd=mounted).splitlines()
    assert sorted(sums) == sorted(output("sh", "-c", "find . -type f -exec md5sum {} +", cwd=lake).splitlines())
    output("cp", "-r", f"{mounted}/.", tmp_path / "copied")
    output("diff", "-r", lake, tmp_path / "copied")
    output("tar", "-C", mounted, "-cf", tmp_path / "all.tar", ".")
    (tmp_path / "untarred").mkdir()
    output("tar", "-C", tmp_path / "untarred", "-xf", tmp_path / "all.tar")
    output("diff", "-r", lake, tmp_path / "untarred")


def test_rsync_copies_it_and_finds_nothing_to_do_then(mounted: Path, lake: Path, tmp_path: Path) -> None:
    require(None if shutil.which("rsync") else "no rsync (Debian package rsync)")
    output("rsync", "-rt", "--checksum", f"{mounted}/", tmp_path / "synced")
    output("diff", "-r", lake, tmp_path / "synced")
    assert output("rsync", "-rti", f"{mounted}/", tmp_path / "synced").split() == []


def test_git_finds_nothing_changed_in_a_copy_and_reads_its_history_in_place(mounted: Path, tmp_path: Path) -> None:
    output("cp", "-r", f"{mounted}/.", tmp_path / "copied")
    trusted = ("-c", "safe.directory=*")
    assert output("git", *trusted, "-C", tmp_path / "copied", "status", "--porcelain", "images") == ""
    assert "Images" in output("git", *trusted, "-C", mounted, "--no-optional-locks", "log", "--oneline")


def test_libraries_read_it(mounted: Path, lake: Path) -> None:
    from PIL import Image

    array = np.load(mounted / "array.npy", mmap_mode="r")
    assert isinstance(array, np.memmap)
    assert np.array_equal(array[123_456:123_460], [123_456, 123_457, 123_458, 123_459])
    assert int(array.sum(dtype=np.int64)) == sum(range(1_000_000))
    with sqlite3.connect(f"file:{mounted}/table.sqlite?mode=ro&immutable=1", uri=True) as database:
        assert database.execute("select count(*), sum(a) from t").fetchone() == (5_000, sum(range(5_000)))
    database.close()
    with Image.open(mounted / "images" / "red" / "02.png") as image:
        assert (image.size, image.getpixel((0, 0))) == ((22, 10), (255, 0, 0))
    big = (lake / "big.bin").read_bytes()
    with (mounted / "big.bin").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[:] == big
    descriptor = os.open(mounted / "big.bin", os.O_RDONLY)
    try:
        assert os.pread(descriptor, 100, len(big) - 10) == big[-10:]
        assert os.pread(descriptor, 100, len(big)) == b""
        assert os.lseek(descriptor, 0, os.SEEK_END) == len(big)
    finally:
        os.close(descriptor)


def test_a_data_set_of_torchvisions_form_is_walked(mounted: Path) -> None:
    """As ImageFolder does: classes are directories."""
    classes = sorted(entry.name for entry in os.scandir(mounted / "images") if entry.is_dir())
    found = [
        os.path.join(root, name)
        for each in classes
        for root, _, names in sorted(os.walk(mounted / "images" / each, followlinks=True))
        for name in sorted(names)
    ]
    assert classes == sorted(COLOURS)
    assert len(found) == 6


FOLDER = """
import sys
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import pil_to_tensor
folder = ImageFolder(sys.argv[1], transform=lambda image: pil_to_tensor(image.resize((8, 8))))
assert folder.classes == ["blue", "red"], folder.classes
batches = list(DataLoader(folder, batch_size=2, num_workers=0))
assert sorted(label for _, labels in batches for label in labels.tolist()) == [0, 0, 0, 1, 1, 1]
for images, labels in batches:
    for image, label in zip(images, labels):
        assert image[:, 4, 4].tolist() == ([0, 0, 255], [255, 0, 0])[label]
"""


def test_torchvision_reads_its_image_folder(mounted: Path) -> None:
    """In the environment of the benchmarks: torchvision of PyPI does not load beside torch's build for CPUs."""
    libraries = ".bench-venv/lib/*/site-packages/torchvision"
    if not any(Path(__file__).parents[3].glob(libraries)):
        pytest.skip("NOT TESTED: no torchvision; make bench")
    output(Path(__file__).parents[3] / ".bench-venv" / "bin" / "python", "-c", FOLDER, mounted / "images")


def test_links_of_a_source_are_files_and_names_that_are_no_text_are_refused(
    shop: CachedShop, point: Path, tmp_path: Path
) -> None:
    source = shop.directory / "raw"
    (tmp_path / "outside").write_bytes(b"not of this source")
    (source / "inner.bin").symlink_to("big.bin")
    (source / "outer.bin").symlink_to(tmp_path / "outside")
    (source / "dangling").symlink_to("nothing")
    shop.ok("import")
    shop.ok("commit", "-m", "links")
    shop.ok("mount", "pets@main", os.fspath(point), "--background")
    names = sorted(os.listdir(point))
    assert names == ["big.bin", "inner.bin", "small"]
    assert not (point / "inner.bin").is_symlink()
    assert (point / "inner.bin").read_bytes() == (source / "big.bin").read_bytes()
    assert not os.path.lexists(os.fsencode(point) + b"/\xff\xfe")
    shop.ok("umount", os.fspath(point))
    with open(os.fsencode(source) + b"/\xff\xfe", "wb") as odd:
        odd.write(b"odd")
    refused = shop.ds("import")
    assert (refused.code != 0, "Traceback" in refused.err) == (True, False), refused


def test_nothing_can_be_written(mounted: Path) -> None:
    file = mounted / "array.npy"
    acts: list[Callable[[], object]] = [
        lambda: file.open("r+b"),
        lambda: (mounted / "new").open("xb"),
        file.unlink,
        lambda: file.rename(mounted / "other"),
        (mounted / "directory").mkdir,
        lambda: file.chmod(0o777),
        lambda: os.link(file, mounted / "linked"),
    ]
    for act in acts:
        with pytest.raises(OSError, match="Read-only file system"):
            act()
