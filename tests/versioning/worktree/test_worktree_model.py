from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.versioning.worktree.copies import Bench
from versioning import CommitId, ConflictError, LocalChangesError

DEEP = bool(os.environ.get("FOREBAY_DEEP"))
PATHS = ["a", "b", "d/a", "d/b", "d/e/a", "é/\U0001f600"]
paths = st.sampled_from(PATHS)
contents = st.sampled_from([b"", b"1", b"2", b"22", b"x" * 600])


class Working(RuleBasedStateMachine):
    """A working copy against dictionaries: what the disk holds, and what each commit holds."""

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.bench = Bench(self.directory)
        self.disk: dict[str, bytes] = {}
        self.commits: dict[CommitId, dict[str, bytes]] = {}
        self.base: dict[str, bytes] = {}
        self.head: dict[str, bytes] = {}

    def teardown(self) -> None:
        if hasattr(self, "directory"):
            shutil.rmtree(self.directory)

    @rule(path=paths, data=contents)
    def edit(self, path: str, data: bytes) -> None:
        self.bench.write({path: data})
        self.disk[path] = data

    @rule(path=paths)
    def delete(self, path: str) -> None:
        (self.bench.root / path).unlink(missing_ok=True)
        self.disk.pop(path, None)

    @rule()
    def commit(self) -> None:
        changed = {path for path in PATHS if self.disk.get(path) != self.base.get(path)}
        theirs = {path for path in PATHS if self.head.get(path) != self.base.get(path)}
        wrong = {path for path in changed & theirs if self.disk.get(path) != self.head.get(path)}
        try:
            made = self.bench.commit()
        except ConflictError as error:
            assert set(error.conflicts.column("path").to_pylist()) == wrong  # noqa: PT017 - the point of the test
            return
        assert not wrong
        merged = {**self.head, **{path: self.disk.get(path) for path in changed}}
        if made in self.commits or made is None:  # nothing that the branch does not hold
            assert not any(merged.get(path) != self.head.get(path) for path in PATHS)
            return
        self.head = {path: data for path, data in merged.items() if data is not None}
        self.commits[made] = self.base = dict(self.head)
        self.disk = dict(self.head)

    @precondition(lambda self: self.commits)
    @rule(data=st.data(), force=st.booleans())
    def checkout(self, data: st.DataObject, force: bool) -> None:
        commit = data.draw(st.sampled_from(list(self.commits)))
        wanted = self.commits[commit]
        differ = {path for path in PATHS if self.base.get(path) != wanted.get(path)}
        mine = {path for path in differ if self.disk.get(path) not in (None, self.base.get(path), wanted.get(path))}
        try:
            self.bench.checkout(commit, force=force)
        except LocalChangesError as error:
            assert not force
            assert set(error.conflicts) == mine  # noqa: PT017 - the point of the test
            return
        assert force or not mine
        tracked = {*self.base, *wanted} if force else differ
        for path in tracked:
            self.disk.pop(path, None)
        self.disk.update({path: each for path, each in wanted.items() if path in tracked})
        self.base = dict(wanted)

    @invariant()
    def the_disk_is_as_the_model_says(self) -> None:
        if hasattr(self, "bench"):
            assert self.bench.files() == self.disk

    @invariant()
    def status_tells_what_differs(self) -> None:
        if not hasattr(self, "bench"):
            return
        found = self.bench.status()
        assert set(found.modified) == {
            path for path in self.base if path in self.disk and self.disk[path] != self.base[path]
        }
        assert set(found.deleted) == set(self.base) - set(self.disk)
        assert set(found.untracked) == set(self.disk) - set(self.base)


Working.TestCase.settings = settings(
    max_examples=300 if DEEP else 15,
    stateful_step_count=50 if DEEP else 15,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestWorking = Working.TestCase
