"""Asking the hooks of a branch before something goes onto it."""

from __future__ import annotations

import posixpath
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from blake3 import blake3

from versioning.columns import is_in, where
from versioning.commits import HookResult
from versioning.diffs import Diff
from versioning.entries import table_entries
from versioning.errors import HookRefusedError, HooksFileError, UntrustedHooksError
from versioning.hooks.proposals import HOOKS_BYTES, HOOKS_PATH, HookContext, Proposal
from versioning.reading import read_stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from versioning.columns import Mask
    from versioning.commits import CommitId
    from versioning.entries import Entry
    from versioning.hooks.builtin import Refusal
    from versioning.hooks.config import Hook
    from versioning.repository import Repository
    from versioning.trees import Tree

_TAG = b"forebay.hooks.v1\n"
_NAMED_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class HookSet:
    """The hooks of a version.

    Attributes:
        hooks: In the order of the file.
        digest: What trust is about: the file, the files of the version that commands name, and the repository's URI.
        named: Those files.
    """

    hooks: tuple[Hook, ...] = ()
    digest: str = ""
    named: tuple[Entry, ...] = ()

    def those_for(self, proposal: Proposal) -> list[Hook]:
        """Return the hooks that are asked."""
        return [hook for hook in self.hooks if hook.is_for(proposal.event, proposal.branch)]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one hook said.

    Attributes:
        hook: The hook.
        refusal: Why it refuses; None if it does not.
        is_trusted: Whether it was run; False: it runs code that nobody trusts.
    """

    hook: Hook
    refusal: Refusal | None
    is_trusted: bool = True


@dataclass(slots=True)
class Gate:
    """Asks the hooks of the head that is committed onto. By default no code is trusted.

    Attributes:
        repository: Whose hooks.
        trusts: Says whether the hooks with a digest may run code.
        directory: Where commands run; None: a temporary directory with the files of the version that they name.
        environment: Of the commands, besides the variables that tell about the change.
        skips: Whether hooks are left out; the commits say so.
    """

    repository: Repository
    trusts: Callable[[str], bool] = lambda digest: False
    directory: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    skips: bool = False

    def check(self, proposal: Proposal) -> tuple[HookResult, ...]:
        """Ask all hooks that are for this; return what they said.

        Raises:
            HookRefusedError: If one refuses.
            UntrustedHooksError: If one would run code that is not trusted.
            HooksFileError: If the hooks cannot be read, or those that the proposal brings could not be.
        """
        self._check_new(proposal)
        try:
            found = self.hooks_of(proposal.base)
        except HooksFileError:
            if self.skips or self._brings_hooks(proposal):  # how else could they be corrected
                return ()
            raise
        wanted = found.those_for(proposal)
        if self.skips:
            return tuple(HookResult(hook.id, "skipped") for hook in wanted)
        for outcome in self.outcomes(found, proposal):
            if not outcome.is_trusted:
                hook = outcome.hook
                raise UntrustedHooksError(proposal.branch, hook.id, command=hook.shown(), digest=found.digest)
            if outcome.refusal is not None:
                reason, findings = outcome.refusal
                raise HookRefusedError(proposal.branch, outcome.hook.id, reason=reason, findings=findings)
        return tuple(HookResult(hook.id, "passed") for hook in wanted)

    def hooks_of(self, commit: CommitId | None) -> HookSet:
        """Return the hooks of a version; one look-up where it has none.

        Raises:
            HooksFileError: If its file cannot be used.
        """
        if commit is None:
            return HookSet()
        tree = self.repository.tree_of(commit)
        entry = tree.get(HOOKS_PATH)
        if entry is None:
            return HookSet()
        from versioning.hooks.config import parse_hooks  # these are for the versions that have hooks

        data = self._read(entry)
        hooks = parse_hooks(data)
        named = _named_files(tree, hooks)
        hasher = blake3(_TAG + self.repository.uri.encode() + b"\n" + blake3(data).digest())
        for each in named:
            hasher.update((each.oid or b"") + each.path.encode() + b"\n")
        return HookSet(hooks, hasher.hexdigest(), named)

    def outcomes(self, found: HookSet, proposal: Proposal) -> Iterator[Outcome]:
        """Ask the hooks one by one: built-in ones first, for they are quick. Hooks whose paths do not change pass."""
        wanted = sorted(found.those_for(proposal), key=lambda hook: hook.runs_code)
        if not wanted:
            return
        diff, trusted = proposal.changes(), self.trusts(found.digest)
        for hook in wanted:
            part = _part_of(diff, hook.paths)
            if hook.paths and not part:
                yield Outcome(hook, None)
            elif hook.runs_code and not trusted:
                yield Outcome(hook, None, is_trusted=False)
            else:
                yield Outcome(hook, self._run(hook, part, found, proposal))

    def _run(self, hook: Hook, diff: Diff, found: HookSet, proposal: Proposal) -> Refusal | None:
        if not hook.runs_code:
            before = self.repository.tree_of(proposal.base).size if proposal.base else 0
            from versioning.hooks.builtin import run_built_in

            return run_built_in(hook, diff, bytes_before=before)
        from versioning.hooks.code import run_command, run_entry_point

        context = HookContext(
            proposal.event,
            proposal.branch,
            proposal.base or "",
            proposal.author,
            proposal.message,
            self.repository.uri,
        )
        if hook.kind == "python":
            return run_entry_point(hook, diff, context)
        with self._working_directory(found) as directory:
            return run_command(hook, diff, context, directory=directory, environment=self.environment)

    @contextmanager
    def _working_directory(self, found: HookSet) -> Iterator[Path]:
        if self.directory is not None:
            yield self.directory
            return
        import tempfile

        with tempfile.TemporaryDirectory(prefix="forebay-hook-") as name:
            for entry in found.named:
                place = Path(name, entry.path)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(self._read(entry, max_bytes=_NAMED_BYTES))
                place.chmod(0o700)
            yield Path(name)

    def _check_new(self, proposal: Proposal) -> None:
        """Refuse hooks that nobody could read afterwards."""
        for entry in self._new_hooks(proposal):
            from versioning.hooks.config import parse_hooks

            parse_hooks(self._read(entry))

    def _brings_hooks(self, proposal: Proposal) -> bool:
        return bool(_is_hooks(proposal.changes().table).any())

    def _new_hooks(self, proposal: Proposal) -> Iterator[Entry]:
        if proposal.event == "pre-commit" or proposal.base is None:  # what is merged was checked when it was committed
            entries = proposal.changes().new_entries
            yield from table_entries(where(entries, _is_hooks(entries)))

    def _read(self, entry: Entry, *, max_bytes: int = HOOKS_BYTES) -> bytes:
        try:
            return read_stored(self.repository, entry, max_bytes=max_bytes)
        except ValueError as error:
            raise HooksFileError(f"{entry.path}: {error}") from error


def _is_hooks(table: pa.Table) -> Mask:
    return is_in(table.column("path"), pa.array([HOOKS_PATH], pa.string()))


def _part_of(diff: Diff, patterns: tuple[str, ...]) -> Diff:
    """Return the part of a diff that some patterns fit; all, without any."""
    if not patterns:
        return diff
    from versioning.hooks.builtin import matching

    rows, entries = diff.table, diff.new_entries
    return Diff(
        where(rows, matching(rows.column("path"), patterns)),
        where(entries, matching(entries.column("path"), patterns)),
    )


def _named_files(tree: Tree, hooks: tuple[Hook, ...]) -> tuple[Entry, ...]:
    """Return the files of a version that commands name as arguments: what they do depends on them."""
    names = sorted({posixpath.normpath(each) for hook in hooks if hook.kind == "run" for each in hook.value})
    found = (tree.get(name) for name in names)
    return tuple(entry for entry in found if entry is not None)
