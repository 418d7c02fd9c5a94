"""What a look at a working copy and a checkout cost, beside DVC, git and Oxen.

    python -m benchmarks.worktree --scale 50                          100,000 files of 10 KiB
    python -m benchmarks.worktree --scale 50 --directory /mnt/scratch --keep    prepare; again: measure only

Two versions of the same files, of which 100 differ. `status`: nothing changed since. `checkout`: from one version to
the other, in turns. Everything is a command from the shell, start-up included; `ds (in process)` is the same without
it. Warm: the page cache has every inode. git keeps the files themselves (no LFS); DVC tracks the directory as one
output, and its `checkout` is timed after git has changed the .dvc file; its cache is copied from, which is its default
on this file system. Oxen, by its Python package, checks branches out. One that is not installed is left out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.rounds import Stopwatch, machine, parser, shown, spread, table, take_turns, write_json
from ds.settings import current_settings
from ds.worktree import WorkingDataset, init

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

FILES, CHANGED = 2_000, 100
ROOT = Path(__file__).parents[1]
AUTHOR = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}


def write_files(top: Path, numbers: range, seed: int, size: int) -> None:
    generator = np.random.default_rng(seed)
    for number in numbers:
        file = top / f"{number // 1000:04d}" / f"{number:07d}.bin"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(generator.bytes(size))


class Contestant(ABC):
    """One tool with both versions in it; `first` and `second` name them."""

    first, second = "first", "second"

    def __init__(self, directory: Path, program: str, environment: dict[str, str] | None = None) -> None:
        self.root = directory
        self.program = program
        self.data = directory / "data"
        home = directory.with_name(f"{directory.name}-home")
        self.environment = {**os.environ, **AUTHOR, "FOREBAY_HOME": str(home), **(environment or {})}

    def run(self, *arguments: str, check: bool = True) -> None:
        subprocess.run(
            arguments,
            cwd=self.root,
            check=check,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def prepare(self, files: int, size: int) -> None:
        """Make both versions; the second is checked out then."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.init()
        write_files(self.data, range(files), 1, size)
        self.commit("first")
        write_files(self.data, range(0, files, max(1, files // CHANGED)), 2, size)
        self.commit("second")

    @abstractmethod
    def init(self) -> None: ...

    @abstractmethod
    def commit(self, name: str) -> None: ...

    @abstractmethod
    def status(self) -> None: ...

    def before_checkout(self, name: str) -> None:  # noqa: B027 - most have nothing to do
        """What is not timed."""

    @abstractmethod
    def checkout(self, name: str) -> None: ...


class Ds(Contestant):
    def init(self) -> None:
        self.run(self.program, "init")

    def commit(self, name: str) -> None:
        self.run(self.program, "add", "-A")
        self.run(self.program, "commit", "-m", name)
        self.run(self.program, "tag", name)

    def status(self) -> None:
        self.run(self.program, "status", "-s")

    def checkout(self, name: str) -> None:
        self.run(self.program, "checkout", name)


class InProcess(Ds):
    """The same working copy as that of `ds`, by its Python API."""

    def prepare(self, files: int, size: int) -> None:
        if not self.root.exists():
            super().prepare(files, size)

    def init(self) -> None:
        init(str(self.root), current_settings())

    def commit(self, name: str) -> None:
        opened = WorkingDataset(self.root)
        opened.add_changed(untracked=True)
        opened.repository.create_tag(name, opened.commit(name))

    def status(self) -> None:
        if WorkingDataset(self.root).status():
            raise SystemExit("the working copy is not clean")

    def checkout(self, name: str) -> None:
        WorkingDataset(self.root).checkout(name)


class Git(Contestant):
    def init(self) -> None:
        self.run("git", "init", "-q", "-b", "main")
        self.run("git", "config", "gc.auto", "0")

    def commit(self, name: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", name)
        self.run("git", "tag", name)

    def status(self) -> None:
        self.run("git", "status", "--porcelain")

    def checkout(self, name: str) -> None:
        self.run("git", "checkout", "-q", name)


class Dvc(Git):
    def init(self) -> None:
        super().init()
        self.run(self.program, "init", "-q")
        self.run(self.program, "config", "core.analytics", "false")

    def commit(self, name: str) -> None:
        self.run(self.program, "add", "-q", "data")
        super().commit(name)

    def status(self) -> None:
        self.run(self.program, "status", "-q")

    def before_checkout(self, name: str) -> None:
        self.run("git", "checkout", "-q", name)

    def checkout(self, name: str) -> None:
        self.run(self.program, "checkout", "-q", "--force")


class Oxen(Contestant):
    """By its Python package: it brings no command."""

    def _call(self, text: str) -> None:
        self.run(self.program, "-c", f"import oxen\nrepo = oxen.Repo('.')\n{text}")

    def init(self) -> None:
        setup = "from oxen.user import config_user\nconfig_user('a', 'a@b')"
        self.environment["HOME"] = str(self.root)
        self._call(f"{setup}\nrepo.init()")

    def commit(self, name: str) -> None:
        self._call(f"repo.add('data')\nrepo.commit({name!r})\nrepo.checkout({name!r}, create=True)")

    def status(self) -> None:
        self._call("repo.status()")

    def checkout(self, name: str) -> None:
        self.environment["HOME"] = str(self.root)
        self._call(f"repo.checkout({name!r})")


def contestants(directory: Path) -> dict[str, Contestant]:
    """Return those that are installed, in the order of the table."""
    beside = Path(sys.executable).parent
    dvc = next((str(path) for path in (beside / "dvc", ROOT / ".venv/bin/dvc") if path.exists()), None)
    found: dict[str, Contestant] = {
        "ds": Ds(directory / "ds", str(beside / "ds")),
        "ds (in process)": InProcess(directory / "ds", ""),
    }
    if shutil.which("git"):
        found["git"] = Git(directory / "git", "git")
    if dvc and shutil.which("git"):
        found["dvc"] = Dvc(directory / "dvc", dvc)
    if subprocess.run([sys.executable, "-c", "import oxen"], check=False, stderr=subprocess.DEVNULL).returncode == 0:
        found["oxen"] = Oxen(directory / "oxen", sys.executable)
    return found


def timed(work: Callable[[], None]) -> float:
    watch = Stopwatch()
    work()
    return watch.cost().wall


def measure(chosen: dict[str, Contestant], rounds: int) -> dict[str, dict[str, list[float]]]:
    def checkout(one: Contestant, number: int) -> float:
        # two contestants may share one working copy: each goes there and back in its turn
        total = 0.0
        for name in (one.first, one.second):
            one.before_checkout(name)
            total += timed(lambda name=name: one.checkout(name))  # type: ignore[misc]
        del number
        return total / 2

    for one in chosen.values():
        one.status()  # what was written a moment ago is looked at once more
    return {
        "status": take_turns({name: lambda _, one=one: timed(one.status) for name, one in chosen.items()}, rounds),  # type: ignore[misc]
        "checkout": take_turns(
            {name: lambda number, one=one: checkout(one, number) for name, one in chosen.items()},  # type: ignore[misc]
            rounds,
        ),
    }


def main() -> None:
    made = parser(__doc__, rounds=3)
    made.add_argument("--keep", action="store_true", help="leave the prepared files, and use those that are there")
    made.add_argument("--size", type=int, default=10 << 10, help="bytes of a file")
    made.add_argument("--prepare-only", action="store_true", help="measure nothing")
    options = made.parse_args()
    files = max(CHANGED, int(FILES * options.scale))
    top = options.directory or Path(tempfile.mkdtemp(prefix="forebay-worktree-"))
    try:
        run(options, top, files)
    finally:
        if not options.keep:
            shutil.rmtree(top, ignore_errors=True)


def run(options: argparse.Namespace, top: Path, files: int) -> None:
    found = contestants(top)
    wanted = options.only.split(",") if options.only else list(found)
    chosen = {name: one for name, one in found.items() if name in wanted}
    for name, one in chosen.items():
        done = top / f"{name}.ready"
        if not done.exists():
            print(f"preparing {name}", file=sys.stderr, flush=True)
            one.prepare(files, options.size)
            done.touch()
    if options.prepare_only:
        return
    result = measure(chosen, options.rounds)
    rows = []
    for name in chosen:
        status, checkout = (spread(result[work][name]) for work in ("status", "checkout"))
        rows.append([name, shown(status), f"{files / status['median']:,.0f}", shown(checkout)])
    print(
        f"{files:,} files of {options.size:,} bytes, {CHANGED} of them differ; {options.rounds} rounds; {machine()}\n"
    )
    print(table(["", "status, s", "files/s", "checkout, s"], rows))
    write_json(options.json, {"files": files, "machine": machine(), "seconds": result})


if __name__ == "__main__":
    main()
