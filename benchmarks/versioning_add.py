"""How long it takes to put many small files of a disk under version control.

    .bench-venv/bin/pip install dvc oxenai git-annex
    .bench-venv/bin/python -m benchmarks.versioning_add --scale 1 [--only forebay,cp] [--json results.json]

At --scale 1 there are 100,000 files of 10 KiB; the default is a fiftieth. Each contestant starts with nothing and is a
process, its start included: add and commit, for `cp -r` the copy. Contestants whose program is not there are left out.
Processor time is that of all its processes, without what the kernel writes later. What is not like for like:

- What was written before is flushed before each turn.
- *forebay* is one process that uses the library; *ds* the two commands `ds add` and `ds commit`.
- cp and git-annex do not wait until the bytes are on the disk; Forebay flushes each pack, tree node and ref.
- DVC (with `core.no_scm`) and git-annex (`add` and `git commit`, hashing by MD5E) are told not to copy: DVC links or
  moves the files into its cache by its default (reflink, else copy). Oxen copies and hashes with xxh3-128.
- git-annex takes 15 ms of a processor for each file, most of it in threads that wait for each other and in the files
  and directories that it makes: 25 minutes for 100,000. It is measured alone: `--scale 0.01 --only git-annex`.
- Forebay makes packs of 64 MiB: 16 files of its repository, where the others have one for each file.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.rounds import Cost, chosen, machine, parser, spread, table, take_turns, write_json
from benchmarks.versioning_data import make_files

if TYPE_CHECKING:
    from collections.abc import Callable

FILES, SIZE = 100_000, 10 << 10
SECONDS = 580
_FOREBAY = """
import sys
from pathlib import Path
from ds.local_files import local_files
from sources import FileStore
from versioning import Repository, add_files
repository = Repository.init(FileStore(sys.argv[2]), sys.argv[2][1:] + "/repo/")
files = sorted(local_files([Path(sys.argv[1])], to=""))
changes = add_files(repository, files)
repository.commit_changes("main", changes, message="all", author="Ada", base=None)
"""
_DS = "from ds.cli import main; main()"
_MANIFEST = """
apiVersion: forebay.dev/v1alpha1
kind: Dataset
metadata: {{name: files}}
spec: {{repo: {{uri: "file://{directory}/repo"}}, cache: {{runtimeRef: {{name: local}}}}}}
---
apiVersion: forebay.dev/v1alpha1
kind: CacheRuntime
metadata: {{name: local}}
spec: {{tiers: [{{path: "{directory}/cache", capacity: 64Mi}}]}}
"""
_OXEN = """
import sys
from oxen import Repo
from oxen.user import config_user
config_user("Ada", "ada@example.org")
repo = Repo(sys.argv[1])
repo.init()
repo.add("data")
repo.commit("all")
"""


ROOT = Path(__file__).parent.parent


def command(*words: str | Path, cwd: Path | None = None, home: Path | None = None) -> None:
    names = dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "Ada")
    names |= dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "ada@example.org")
    binaries = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, **names, "PATH": binaries, "DVC_NO_ANALYTICS": "1"}
    if home is not None:
        environment["FOREBAY_HOME"] = str(home)
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))[:80]} failed:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")


def forebay(source: Path, scratch: Path) -> Cost:
    return timed(lambda: command(sys.executable, "-c", _FOREBAY, source, scratch, cwd=ROOT))


def ds(source: Path, scratch: Path) -> Cost:
    def run(*words: str | Path) -> None:
        command(sys.executable, "-c", _DS, *words, cwd=ROOT, home=scratch / "home")

    (scratch / "dataset.yaml").write_text(_MANIFEST.format(directory=scratch))
    run("apply", "-f", scratch / "dataset.yaml")

    def add() -> None:
        run("add", source, "-d", "files", "--to", "data")
        run("commit", "-d", "files", "-m", "all")

    return timed(add)


def cp(source: Path, scratch: Path) -> Cost:
    return timed(lambda: command("cp", "-r", source, scratch / "data"))


def dvc(source: Path, scratch: Path) -> Cost:
    shutil.copytree(source, scratch / "data")
    command("dvc", "init", "--no-scm", "-q", cwd=scratch)
    return timed(lambda: command("dvc", "add", "-q", "data", cwd=scratch))


def oxen(source: Path, scratch: Path) -> Cost:
    shutil.copytree(source, scratch / "data")
    return timed(lambda: command(sys.executable, "-c", _OXEN, scratch))


def git_annex(source: Path, scratch: Path) -> Cost:
    shutil.copytree(source, scratch / "data")
    command("git", "init", "-q", cwd=scratch)
    command("git", "annex", "init", "-q", cwd=scratch)

    def add() -> None:
        command("git", "annex", "add", "-q", "--backend=MD5E", "data", cwd=scratch)
        command("git", "commit", "-q", "-m", "all", cwd=scratch)

    return timed(add)


def timed(action: Callable[[], None]) -> Cost:
    os.sync()  # what others left to be written is not this one's
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    action()
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


CONTESTANTS = {"forebay": forebay, "ds": ds, "cp": cp, "oxen": oxen, "dvc": dvc, "git-annex": git_annex}


def available(name: str) -> bool:
    folder = Path(sys.executable).parent
    if name == "oxen":
        return subprocess.run([sys.executable, "-c", "import oxen"], capture_output=True, check=False).returncode == 0
    return name in ("forebay", "ds", "cp") or (folder / name).exists() or shutil.which(name) is not None


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    line = parser(__doc__, rounds=3)
    line.set_defaults(scale=0.02)
    options = line.parse_args(arguments)
    count = max(100, int(FILES * options.scale))
    names = [name for name in chosen(options, CONTESTANTS) if available(name)]
    with tempfile.TemporaryDirectory(prefix="forebay-add-", dir=options.directory) as directory:
        source = Path(directory, "source")
        make_files(source, count, SIZE)

        def turn(name: str) -> Callable[[int], Cost]:
            def once(number: int) -> Cost:
                scratch = Path(directory, f"{name}-{number}")
                scratch.mkdir()
                try:
                    return CONTESTANTS[name](source, scratch)
                finally:
                    subprocess.run(["chmod", "-R", "u+w", scratch], check=False)  # git-annex protects its objects
                    shutil.rmtree(scratch)

            return once

        found = take_turns({name: turn(name) for name in names}, options.rounds)
    medians = {name: spread([cost.wall for cost in costs], 2) for name, costs in found.items()}
    first = medians[names[0]]["median"]
    lines = [
        [
            name,
            row["median"],
            f"{row['q1']} - {row['q3']}",
            f"{statistics.median(cost.cpu for cost in found[name]):.2f}",
            f"{count / row['median']:,.0f}",
            f"{row['median'] / first:.2f}",
        ]
        for name, row in medians.items()
    ]
    print(f"{machine()}; {count:,} files of {SIZE:,} bytes; {options.rounds} rounds")
    print(table(["tool", "seconds (median)", "q1 - q3", "CPU seconds", "files/s", f"time / {names[0]}"], lines))
    result = {"machine": machine(), "files": count, "seconds": found}
    write_json(options.json, result)
    return result


if __name__ == "__main__":
    main()
