"""The same bytes from any number of workers, whatever dies meanwhile."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from loaders import PackOptions, ShardLayout, pack
from loaders.errors import PackExecutorError, PackRunningError, PackWorkerError, TransformError
from loaders.packing.journals import journal_name, opened_journal
from loaders.packing.workplaces import plain_workplace
from sources import FileStore, SourceFullError
from tests.loaders.conftest import AUTHOR, Workshop
from tests.loaders.test_packing import digits, packs
from versioning import Repository

if TYPE_CHECKING:
    from loaders import PackReport

DEEP = bool(os.environ.get("FOREBAY_DEEP"))
LAYOUT = ShardLayout(shuffle=True, seed=3, shard_size=20_000)
UPPER = "tests.loaders.pack_transforms:upper"


def run(workshop: Workshop, branch: str, *, on_progress: Any = None, **options: Any) -> PackReport:
    places = {f"{workshop.source}/"[1:]: f"file://{workshop.source}"}
    chosen = PackOptions(workplace=plain_workplace(workshop.repository, places), **options)
    return pack(
        workshop.repository,
        "main",
        workshop.client,
        layout=LAYOUT,
        branch=branch,
        author=AUTHOR,
        options=chosen,
        on_progress=on_progress,
    )


def interrupted(workshop: Workshop, branch: str, *, at: int, journals: Path) -> None:
    """Pack until some shards are stored, and break off there."""

    def stop(now: Any) -> None:
        if now.shards == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(workshop, branch, on_progress=stop, journals=journals)


def tree(workshop: Workshop, branch: str) -> object:
    return workshop.repository.tree(branch).id


@pytest.mark.parametrize("transform", [None, UPPER])
def test_any_workers_give_the_same_objects_and_tree(workshop: Workshop, transform: str | None) -> None:
    workshop.import_files(digits(60))
    run(workshop, "one", transform=transform)
    names = packs(workshop)
    assert len(names) > 4
    run(workshop, "two", workers=2, transform=transform)
    with ThreadPoolExecutor(3) as threads:
        run(workshop, "threads", executor=threads, workers=3, transform=transform)
    assert tree(workshop, "one") == tree(workshop, "two") == tree(workshop, "threads")
    assert packs(workshop) == names


def test_an_executor_of_processes_is_as_good(workshop: Workshop) -> None:
    workshop.import_files(digits(40))
    run(workshop, "one")
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        run(workshop, "pool", executor=pool, workers=2)
    assert tree(workshop, "one") == tree(workshop, "pool")


def test_a_worker_that_dies_is_replaced_and_its_shards_are_made(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREBAY_TEST_MARK", str(tmp_path / "died"))
    workshop.import_files(digits(40))
    run(workshop, "killed", workers=2, transform="tests.loaders.pack_transforms:die_once")
    assert (tmp_path / "died").exists()
    run(workshop, "alone", transform="tests.loaders.pack_transforms:die_once")
    assert tree(workshop, "killed") == tree(workshop, "alone")


def test_workers_that_always_die_end_the_pack(workshop: Workshop) -> None:
    workshop.import_files(digits(40))
    with pytest.raises(PackWorkerError, match=r"died 3 times with shard \d+ \(SIGKILL, as when memory is short\)"):
        run(workshop, "never", workers=2, transform="tests.loaders.pack_transforms:die_always")


def test_an_error_of_a_worker_comes_back_as_it_was(workshop: Workshop) -> None:
    workshop.import_files(digits(40))
    with pytest.raises(TransformError, match=r"sample images/\d/00\d7: ValueError: seven is no number") as caught:
        run(workshop, "never", workers=2, transform="tests.loaders.pack_transforms:fail_with_seven")
    assert "7" in str(caught.value)


def test_functions_that_others_cannot_import_are_refused_before_workers_start(workshop: Workshop) -> None:
    workshop.import_files(digits(5))
    with pytest.raises(TransformError, match="put it into a module"):
        run(workshop, "never", workers=2, transform=lambda sample: sample)


def test_workers_that_cannot_open_the_repository_say_what_they_need(workshop: Workshop) -> None:
    workshop.import_files(digits(40))
    workplace = replace(plain_workplace(workshop.repository), opener="tests.loaders.pack_transforms:nothing")
    options = PackOptions(workers=2, workplace=workplace)
    with pytest.raises(PackWorkerError, match="same dataset applied"):
        pack(workshop.repository, "main", workshop.client, layout=LAYOUT, branch="b", author=AUTHOR, options=options)


def test_unknown_executors_are_refused(workshop: Workshop) -> None:
    workshop.import_files(digits(5))
    with pytest.raises(PackExecutorError, match="expected an executor such as dask://"):
        run(workshop, "never", executor="spark://here")
    with pytest.raises(PackExecutorError, match="is no concurrent"):
        run(workshop, "never", executor=object())


PACKER = """
import sys
from pathlib import Path
from cache_runtime import Client
from loaders import PackOptions, ShardLayout, pack
from loaders.packing.workplaces import plain_workplace
from sources import FileStore, SourceFullError
from sources import FileStore, Origins
from versioning import Repository
root, workers, transform = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] or None
if __name__ == "__main__":
    store, origins = FileStore(root), Origins()
    origins.add(f"{root}/"[1:], store)
    repository = Repository.open(store, f"{root}/repo/"[1:])
    places = {f"{root}/source/"[1:]: f"file://{root}/source"}
    options = PackOptions(workers=workers, journals=root / "journals", transform=transform,
                          workplace=plain_workplace(repository, places))
    layout = ShardLayout(shuffle=True, seed=3, shard_size=20_000)
    print("begin", flush=True)
    report = pack(repository, "main", Client(origins, None), layout=layout, branch="killed", author="Ada",
                  options=options, on_progress=lambda now: print(now.shards, flush=True))
    print("resumed", report.resumed_shards, report.shards, flush=True)
"""


def start(root: Path, workers: int, transform: str | None) -> subprocess.Popen[str]:
    (root / "packer.py").write_text(PACKER)
    here = str(Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, str(root / "packer.py"), str(root), str(workers), transform or ""],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": here},
    )


@pytest.mark.parametrize("seed", range(12 if DEEP else 2))
def test_killed_anywhere_and_run_again_the_result_is_the_same_to_the_byte(
    workshop: Workshop, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed + (time.time_ns() if DEEP else 0))
    transform = chance.choice([None, UPPER])
    workshop.import_files(digits(80))
    run(workshop, "whole", transform=transform)
    names = packs(workshop)
    expected = {path.name: path.read_bytes() for path in names}
    for path in names:
        path.unlink()
    seen = 0
    for _ in range(3 if DEEP else 2):
        packer = start(tmp_path, chance.randint(1, 3), transform)
        assert packer.stdout is not None
        stop_at = seen + chance.randint(1, 3)
        for line in packer.stdout:
            seen = int(line) if line.strip().isdigit() else seen
            if seen >= stop_at:
                time.sleep(chance.random() * 0.02)
                break
        packer.send_signal(signal.SIGKILL)
        packer.stdout.read()  # to the end of its workers, too: they hold it open
        packer.wait(30)
        packer.stdout.close()
    last = start(tmp_path, chance.randint(1, 3), transform)
    out, _ = last.communicate(timeout=100)
    assert last.returncode == 0, out
    words = [line.split() for line in out.splitlines() if line.startswith("resumed")]
    assert seen == len(names) or int(words[0][1]) >= seen > 0
    assert {path.name: path.read_bytes() for path in packs(workshop)} == expected
    assert tree(workshop, "killed") == tree(workshop, "whole")
    assert list((tmp_path / "journals").glob("*.journal")) == []


def test_shards_that_were_collected_meanwhile_are_written_again(workshop: Workshop, tmp_path: Path) -> None:
    workshop.import_files(digits(60))
    first = run(workshop, "one")
    names = packs(workshop)
    journals = tmp_path / "journals"
    interrupted(workshop, "two", at=4, journals=journals)
    names[0].unlink()
    names[1].unlink()
    second = run(workshop, "two", journals=journals)
    assert 0 < second.resumed_shards <= 4
    assert (packs(workshop), tree(workshop, "one")) == (names, tree(workshop, "two"))
    assert first.samples == second.samples


def test_a_torn_or_foreign_journal_costs_no_more_than_its_end(workshop: Workshop, tmp_path: Path) -> None:
    commit = workshop.import_files(digits(60))
    journals = tmp_path / "journals"
    name = journal_name(commit, LAYOUT, None)
    interrupted(workshop, "two", at=5, journals=journals)
    path = journals / f"{name}.journal"
    whole = path.read_bytes()
    chance = random.Random(1)
    for _ in range(30):
        at = chance.randrange(len(whole))
        path.write_bytes(whole[:at])
        with opened_journal(journals, name, resume=True) as journal:
            assert len(journal.results) < 5
            with pytest.raises(PackRunningError), opened_journal(journals, name, resume=True):
                pass
        damaged = bytearray(whole)
        damaged[at] ^= 1
        path.write_bytes(bytes(damaged))
        with opened_journal(journals, name, resume=True) as journal:
            assert len(journal.results) < 5
    path.write_bytes(b"something else")
    assert run(workshop, "two", journals=journals).resumed_shards == 0


def test_no_resume_begins_anew(workshop: Workshop, tmp_path: Path) -> None:
    workshop.import_files(digits(60))
    interrupted(workshop, "b", at=3, journals=tmp_path / "journals")
    assert run(workshop, "b", journals=tmp_path / "journals", resume=False).resumed_shards == 0


def test_old_journals_are_thrown_away_unless_somebody_holds_them(tmp_path: Path) -> None:
    for name in ("held", "left", "new"):
        with opened_journal(tmp_path, name, resume=True):
            pass
    (tmp_path / "orphan.lock").touch()
    with opened_journal(tmp_path, "held", resume=True):
        for name in ("held", "left", "orphan"):
            for path in tmp_path.glob(f"{name}.*"):
                os.utime(path, (1, 1))
        with opened_journal(tmp_path, "other", resume=True):
            assert {path.stem for path in tmp_path.glob("*.*")} == {"held", "new", "other"}
        with pytest.raises(PackRunningError), opened_journal(tmp_path, "held", resume=True):
            pass
    assert (tmp_path / "held.journal").exists()


def test_a_full_disk_ends_a_pack_with_our_error(workshop: Workshop, small_disk: Path) -> None:
    """Of a repository on a disk of 4 MiB: what is stored is kept, and nothing is committed or left behind."""
    store = FileStore(small_disk)
    repository = Repository.init(store, f"{small_disk}/"[1:])
    workshop = replace(workshop, repository=repository)
    head = workshop.import_files({f"{number}.bin": random.Random(number).randbytes(90_000) for number in range(60)})
    layout = ShardLayout(shard_size=1 << 20)
    with pytest.raises(SourceFullError, match=r"no space left.*free some"):
        pack(repository, "main", workshop.client, layout=layout, branch="main", author=AUTHOR)
    assert repository.resolve("main") == head
    deadline = time.monotonic() + 30  # another shard may be on its way to the disk still
    while (left := {path.name for path in small_disk.rglob(".forebay-tmp-*")}) != {".forebay-tmp-lock"}:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)
