"""Worker processes that die, their trainer that dies, and memory that is shared."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from benchmarks.rounds import family
from loaders.errors import LoaderTimeoutError, WorkerEndedError
from loaders.running import Loader
from loaders.running.processes import ProcessRunner
from loaders.running.slabs import SlabRing
from tests.loaders.running.samples import Numbers, Unpicklable, expected, keys, until_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loaders.running.options import StartMethod

ROOT = Path(__file__).parents[3]


@pytest.fixture
def new() -> Iterator[Callable[..., Loader[Any]]]:
    made: list[Loader[Any]] = []

    def loader(dataset: Any, batch_size: int = 4, **options: Any) -> Loader[Any]:
        defaults = {"mode": "process", "workers": 2, "collate": "list", "timeout": 60.0, "seed": 1}
        made.append(Loader(dataset, batch_size, **{**defaults, **options}))
        return made[-1]

    yield loader
    for one in made:
        pids = workers_of(one)
        one.close()
        assert not any(map(is_alive, pids))


def workers_of(loader: Loader[Any]) -> list[int]:
    assert isinstance(loader._runner, ProcessRunner)
    return loader._runner.pids


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_killed_workers_batches_are_made_by_others(new: Callable[..., Loader[Any]], start_method: StartMethod) -> None:
    loader = new(Numbers(400), start_method=start_method)
    draw = random.Random(3)
    for epoch in range(2):
        found = []
        for step, batch in enumerate(loader):
            found.append(batch)
            if step % 40 == draw.randrange(40) or step == 10:
                os.kill(draw.choice(workers_of(loader)), signal.SIGKILL)
        assert keys(found) == expected(loader.sampler.batch_at(epoch, step) for step in range(100))
    assert loader.stats().restarts >= 2


def test_a_batch_that_kills_a_worker_is_tried_again(new: Callable[..., Loader[Any]], tmp_path: Path) -> None:
    loader = new(Numbers(24, deadly=frozenset([5]), deaths=tmp_path, lives=2))
    assert sorted(key for batch in keys(loader) for key in batch) == sorted(f"k{number}" for number in range(24))
    assert loader.stats().restarts == 2


def test_a_batch_that_kills_every_worker_is_an_error_in_its_turn(new: Callable[..., Loader[Any]]) -> None:
    loader = new(Numbers(24, deadly=frozenset([13])), order="none")
    found, error = until_error(loader, WorkerEndedError)
    assert "exit code -9 (killed; is there enough memory?)" in str(error)
    assert "samples [12, 13, 14, 15]" in str(error)
    assert keys(found) == expected([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]])
    assert error.numbers == (12, 13, 14, 15)
    assert workers_of(loader) == []


def test_what_cannot_be_unpickled_is_told(new: Callable[..., Loader[Any]]) -> None:
    with pytest.raises(WorkerEndedError, match="no such file in a worker"):
        next(iter(new(Unpicklable(8))))


def test_what_cannot_be_pickled_is_told(new: Callable[..., Loader[Any]]) -> None:
    with pytest.raises(Exception, match="pickle") as caught:
        next(iter(new(Numbers(8), collate=lambda samples: samples)))
    assert "functions of a module" in caught.value.__notes__[0]


def test_a_hanging_worker_is_an_error_and_ended(new: Callable[..., Loader[Any]]) -> None:
    loader = new(Numbers(24, slow=frozenset([9]), seconds=300), order="none", timeout=8.0)
    with pytest.raises(LoaderTimeoutError, match="samples 8, 9, 10, 11"):
        keys(loader)
    assert workers_of(loader) == []


def test_workers_stay_for_the_next_epoch_and_after_a_break(new: Callable[..., Loader[Any]]) -> None:
    loader = new(Numbers(40))
    for _ in loader:
        break
    pids = workers_of(loader)
    rest = keys(loader)
    assert rest == expected(loader.sampler.batch_at(0, step) for step in range(1, 10))
    assert len(keys(loader)) == 10
    assert workers_of(loader) == pids


def test_a_loader_that_is_dropped_ends_its_workers() -> None:
    loader: Loader[Any] = Loader(Numbers(40), 4, mode="process", workers=1, collate="list")
    next(iter(loader))
    (pid,) = workers_of(loader)
    del loader
    gc.collect()
    assert not is_alive(pid)


class Shapes(Numbers):
    """Arrays, tensors, bytes, and now and then something large."""

    def one(self, number: int) -> dict[str, Any]:
        return {
            "array": np.full((50, 7), number, np.float32),
            "tensor": torch.full((3, 100), number, dtype=torch.bfloat16),
            "nothing": torch.empty(0),
            "bytes": bytes([number]) * 500,
            "view": memoryview(bytes([number]) * 300),
            "large": np.full(100_000 if number % 16 == 5 else 1, number),
            "turned": np.full((4, 6), number).T,
        }


def check(sample: dict[str, Any], number: int) -> None:
    assert sample["array"].tolist() == [[number] * 7] * 50
    assert sample["tensor"].dtype == torch.bfloat16
    assert sample["tensor"].tolist() == [[number] * 100] * 3
    assert sample["nothing"].shape == (0,)
    assert sample["bytes"] == bytes([number]) * 500
    assert bytes(sample["view"]) == bytes([number]) * 300
    assert set(sample["large"].tolist()) == {number}
    assert sample["turned"].shape == (6, 4)


def test_kept_batches_are_never_overwritten_and_can_be_changed(new: Callable[..., Loader[Any]]) -> None:
    loader = new(Shapes(120), workers=1)
    order = [loader.sampler.batch_at(0, step) for step in range(30)]
    kept = [pair for batch, numbers in zip(loader, order, strict=True) for pair in zip(batch, numbers, strict=True)]
    assert len(kept) == 120
    for sample, number in kept:
        check(sample, number)
    rows = [sample["array"][3:5] for sample, _ in kept]  # views of views
    tensors = [sample["tensor"][1:] for sample, _ in kept]
    del kept, sample
    loader.set_epoch(1)
    for batch in loader:
        for sample in batch:
            sample["array"] += 1
    assert [row[0, 0] for row in rows] == [tensor[0, 0] for tensor in tensors]


def test_slabs_are_used_again_when_nothing_refers_to_them() -> None:
    ring = SlabRing(2, 1000)
    first, second = ring.take(), ring.take()
    assert first is not None
    assert second is not None
    assert ring.take() is None
    array = np.frombuffer(first[1], np.uint8)[10:20].reshape(2, 5)[1]
    tensor = torch.from_numpy(array)
    del first, array
    assert ring.take() is None
    del tensor
    again = ring.take()
    assert again is not None
    assert again[0] == 0
    ring.close()


TRAINER = """
import sys, time
from loaders.running import Loader
from tests.loaders.running.samples import Numbers

if __name__ == "__main__":
    numbers = Numbers(4000, slow=frozenset(range(0, 4000, 7)), seconds=0.01)
    loader = Loader(numbers, 8, mode="process", workers=2, collate="numpy", start_method=sys.argv[1])
    for step, batch in enumerate(loader):
        if step == 5:
            print(*loader._runner.pids, flush=True)
"""


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_trainer_leaves_nothing(tmp_path: Path, start_method: str, how: signal.Signals) -> None:
    script = tmp_path / "train.py"
    script.write_text(TRAINER)
    with tempfile.TemporaryDirectory(prefix="forebay-") as temporary:  # names of sockets must be short
        _kill_a_trainer([sys.executable, str(script), start_method], tmp_path, temporary, how)
        assert os.listdir(temporary) == []


def _kill_a_trainer(command: list[str], directory: Path, temporary: str, how: signal.Signals) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": temporary}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=directory
    ) as trainer:
        assert trainer.stdout is not None
        pids = [int(pid) for pid in trainer.stdout.readline().split()]
        assert len(pids) == 2
        children = family(trainer.pid)[1:]
        assert set(pids) <= set(children)
        for pid in [trainer.pid, *children]:
            assert "/dev/shm" not in Path(f"/proc/{pid}/maps").read_text()
        time.sleep(0.05 * random.Random(how).random())
        trainer.send_signal(how)
        trainer.wait(30)
    assert wait_until(lambda: not any(map(is_alive, children)))


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_until(what: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


NO_GUARD = """
from loaders.running import Loader
from tests.loaders.running.samples import Numbers

for batch in Loader(Numbers(40), 8, mode="process", workers=1, collate="list", timeout=60):
    pass
"""


def test_a_script_without_its_guard_is_told(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(NO_GUARD)
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert 'needs `if __name__ == "__main__":`' in done.stderr


def test_a_fork_of_the_trainer_makes_workers_of_its_own(new: Callable[..., Loader[Any]]) -> None:
    loader = new(Numbers(40), workers=1)
    next(iter(loader))
    pids = workers_of(loader)
    child = os.fork()
    if not child:
        ok = False
        try:
            ok = len(keys(loader)) == 9 and workers_of(loader) != pids
            loader.close()
        finally:
            os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(keys(loader)) == 9
    assert workers_of(loader) == pids
