"""Commands that look at history: log, diff."""

from __future__ import annotations

import json as jsons
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ds.commands.options import DatasetOption, JsonOption, complete_revision, open_dataset
from ds.commands.pathspecs import paths_in, wants_pager
from ds.commands.signing import RequireOption, SignatureCheck, SignersOption
from ds.diffing import Change, changes_of, diff_at, diff_of_stage, find_renames, summary_of
from ds.errors import UsageError
from ds.output import errors, human_bytes, plural, print_json, print_record, print_text
from ds.paging import paged
from ds.ranges import asked_history, asked_pair, path_instead, split_dataset
from versioning import RevisionNotFoundError, history

if TYPE_CHECKING:
    from ds.dataset import Dataset
    from versioning import Commit, CommitId, Diff

NdjsonOption = Annotated[bool, typer.Option("--ndjson", help="Print one JSON object a line, as they are found.")]


def log_command(
    context: typer.Context,
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[[DATASET@]RANGE]",
            help="A revision, A..B, A...B, or a path; default: the current branch.",
            autocompletion=complete_revision,
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Show so many commits.")] = None,
    oneline: Annotated[bool, typer.Option("--oneline", help="One line per commit.")] = False,
    meta: Annotated[
        list[str] | None, typer.Option("--meta", help="Only commits with KEY=VALUE in their meta; may repeat.")
    ] = None,
    details: Annotated[
        bool, typer.Option("--details", help="With meta, lineage, and what hooks and the signature say.")
    ] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Check the signatures. Exits with 1 if one is bad.")] = False,
    require: RequireOption = False,
    signers: SignersOption = None,
    dataset: DatasetOption = None,
    json: JsonOption = False,
    ndjson: NdjsonOption = False,
) -> None:
    """Show the commits that lead to a revision, newest first; with paths, those that changed them.

    \b
    Examples:
      ds log --oneline
      ds log digits@augment -n 5
      ds log v1..main -- labels images/3
      ds log --meta ticket=DATA-42
      ds log --verify --require
    """
    opened, text = _opened(target, dataset)
    paths = paths_in(context, opened)
    try:
        asked = asked_history(opened, text)
    except RevisionNotFoundError as error:
        if paths:
            raise
        paths, asked = [path_instead(opened, text, error)], asked_history(opened, "")
    query = replace(asked, paths=tuple(paths), meta=pairs(meta or []), limit=limit)
    commits = history(opened.repository.work, query)
    checks = SignatureCheck(opened, signers, require=require) if verify or require else None
    if json:
        print_json("log", [commit_record(found, commit, checks) for found, commit in commits])
    elif ndjson:
        for found, commit in commits:
            print_record(commit_record(found, commit, checks))
    else:
        names, cut = decorations(opened), False
        with paged(wants_pager(context)):
            for found, commit in commits:
                cut |= _is_cut(opened, found, commit)
                said = checks.said(found) if checks else ""
                print_commit(found, commit, names=names.get(found, []), oneline=oneline, details=details, said=said)
        if cut:
            errors().print("older commits were cut off by ds expire")
    if checks is not None and checks.has_failed:
        raise typer.Exit(1)


def diff_command(
    context: typer.Context,
    revisions: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATASET@]RANGE",
            help="A..B; A...B: what B did since they parted; A to compare with the current branch; or a path. "
            "Default: what was changed in the working copy and not staged.",
            autocompletion=complete_revision,
        ),
    ] = None,
    staged: Annotated[bool, typer.Option("--staged", "--cached", help="What is staged, against its commit.")] = False,
    stat: Annotated[bool, typer.Option("--stat", help="Counts and bytes only.")] = False,
    name_status: Annotated[
        bool, typer.Option("--name-status", help="Letter and path with a tab between, as git writes it.")
    ] = False,
    renames: Annotated[
        bool, typer.Option("--find-renames", "-M", help="Show a file that moved with the same bytes as one change.")
    ] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if there are differences.")] = False,
    dataset: DatasetOption = None,
    json: JsonOption = False,
    ndjson: NdjsonOption = False,
) -> None:
    """Show which files differ: A added, M modified, D deleted, L same content stored elsewhere, R renamed (with -M).

    \b
    Examples:
      ds diff
      ds diff --staged
      ds diff main..augment --stat
      ds diff main~1..main -- labels
      ds diff main...augment -M
    """
    opened, text = _opened(revisions, dataset)
    found = _asked_diff(opened, text, paths_in(context, opened), staged=staged)
    old, new = found.old, found.new
    if found.diff is None:
        changes, summary = found.changes, asdict(summary_of(found.changes))
    else:
        renamed = find_renames(opened.repository, old, found.diff) if renames else {}
        changes = list(changes_of(found.diff, renamed)) if json or ndjson or not stat else []
        summary = asdict(found.diff.summary())
    if json:
        print_json("diff", {"old": old, "new": new, "stat": summary, "changes": [each.record() for each in changes]})
    elif ndjson:
        for each in changes:
            print_record(each.record())
    elif stat:
        print_stat(summary)
    else:
        with paged(wants_pager(context)):
            for each in changes:
                print_text(_shown(each, tabs=name_status))
    if exit_code and any(summary[name] for name in ("added", "modified", "deleted", "layout")):
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Compared:
    """What `ds diff` compares: `diff`, or `changes` of the working copy; what is no commit is None."""

    old: CommitId | None
    new: CommitId | None
    diff: Diff | None = None
    changes: list[Change] = field(default_factory=list)


def _asked_diff(opened: Dataset, text: str, paths: list[str], *, staged: bool) -> _Compared:
    if text:
        try:
            old, new = asked_pair(opened, text)
        except RevisionNotFoundError as error:
            if paths:
                raise
            paths = [path_instead(opened, text, error)]
        else:
            if staged:
                raise UsageError(f"--staged compares with the commit it was staged on; leave out {text}")
            return _Compared(old, new, diff_at(opened.repository, old, new, paths))
    if staged:
        return _Compared(opened.stage().read().base or opened.head(), None, diff_of_stage(opened, paths))
    from ds.worktree.dataset import WorkingDataset

    if not isinstance(opened, WorkingDataset):
        raise UsageError("this dataset has no working copy here; name versions, as in main~1..main, or use --staged")
    from ds.worktree.differing import working_changes

    return _Compared(opened.head(), None, changes=working_changes(opened, paths))


def commit_record(identity: CommitId, commit: Commit, checks: SignatureCheck | None = None) -> dict[str, Any]:
    """Return what JSON says of a commit."""
    verified = {"verified": asdict(checks.look(identity))} if checks else {}
    return {"commit": identity, **asdict(commit), **verified}


def decorations(opened: Dataset) -> dict[str, list[str]]:
    """Return the branches and tags of each commit that has some."""
    names: dict[str, list[str]] = {}
    for name, found in {**opened.repository.tags(), **opened.repository.branches()}.items():
        names.setdefault(found, []).append(name)
    return names


def print_commit(
    identity: CommitId, commit: Commit, *, names: list[str], oneline: bool, details: bool = False, said: str = ""
) -> None:
    """Print a commit as git log does; `said` is what its signature says."""
    decoration = f" ({', '.join(sorted(names))})" if names else ""
    if oneline:
        checked = f" [{said}]" if said else ""
        print_text(f"{identity[:8]}{decoration}{checked} {commit.message.partition(chr(10))[0]}")
        return
    print_text(f"commit {identity}{decoration}")
    if len(commit.parents) > 1:
        print_text("Merge:  " + " ".join(parent[:8] for parent in commit.parents))
    if said:
        print_text(f"Signed: {said}")
    print_text(f"Author: {commit.author}\nDate:   {commit.authored_at}\n")
    print_text("\n".join(f"    {line}" for line in commit.message.splitlines()))
    print_text(f"\n    {plural(commit.stats.files, 'file')}, {human_bytes(commit.stats.bytes)}\n")
    if details:
        _print_details(commit)


def _print_details(commit: Commit) -> None:
    lines = [f"    {name} = {_value(value)}" for name, value in sorted(commit.meta.items())]
    lines += [f"    {name}: {_value(value)}" for name, value in sorted(commit.lineage.items())]
    lines += [f"    hook {hook.id}: {hook.result}" for hook in commit.hooks]
    lines += ["    signed"] if commit.signature else []
    if lines:
        print_text("\n".join(lines) + "\n")


def _value(value: object) -> str:
    return value if isinstance(value, str) else jsons.dumps(value, ensure_ascii=False, sort_keys=True)


def print_stat(summary: dict[str, int]) -> None:
    """Print the counts of a diff."""
    files = sum(summary[name] for name in ("added", "modified", "deleted"))
    print_text(
        f" {plural(files, 'file')} changed: {summary['added']:,} added (+{human_bytes(summary['added_bytes'])}), "
        f"{summary['modified']:,} modified, {summary['deleted']:,} deleted (-{human_bytes(summary['deleted_bytes'])})"
    )
    if summary["layout"]:
        print_text(f" {plural(summary['layout'], 'file')} with the same content in a new layout")


def pairs(texts: list[str]) -> dict[str, str]:
    """Read the values of `--meta`.

    Raises:
        UsageError: If one is not KEY=VALUE.
    """
    for text in texts:
        if "=" not in text:
            raise UsageError(f"--meta {text}: expected KEY=VALUE")
    return dict(text.split("=", 1) for text in texts)


def _is_cut(opened: Dataset, identity: CommitId, commit: Commit) -> bool:
    """Say whether a commit had parents that `ds expire` has hidden."""
    return len(commit.parents) < len(opened.repository.commits.read_whole(identity).parents)


def _opened(text: str | None, dataset: str | None) -> tuple[Dataset, str]:
    name, rest = split_dataset(text)
    if name and dataset and name != dataset:
        raise UsageError(f"{text!r} names dataset {name!r}, but -d says {dataset!r}; leave one out")
    return open_dataset(name or dataset), rest


def _shown(change: Change, *, tabs: bool) -> str:
    if change.old_path is not None:
        return f"R100\t{change.old_path}\t{change.path}" if tabs else f"R  {change.old_path} -> {change.path}"
    return f"{change.op}{chr(9) if tabs else '  '}{change.path}"
