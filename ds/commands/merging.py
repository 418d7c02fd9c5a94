"""Commands that bring commits onto the current branch: merge, revert, cherry-pick; and settle their conflicts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ds import merging
from ds.commands.options import AuthorOption, DatasetOption, JsonOption, NoVerifyOption, complete_revision, open_dataset
from ds.errors import UsageError
from ds.exits import EXPECTED_ERRORS
from ds.output import plural, print_json, print_table, print_text
from versioning import STRATEGIES, Driver, Job, MergeOptions, MergePlan, MergeResult, MergeState
from versioning.strategies import check_strategy

if TYPE_CHECKING:
    from collections.abc import Callable

    from ds.dataset import Dataset
    from versioning.conflicts import How
    from versioning.integrating import FastForward

_SHOWN = 20


def complete_strategy(incomplete: str) -> list[str]:
    """Complete names of strategies."""
    return [name for name in STRATEGIES if name.startswith(incomplete)]


def complete_conflict(incomplete: str) -> list[str]:
    """Complete paths that are in conflict."""
    try:
        state = merging.merge_file(open_dataset(None)).read()
    except EXPECTED_ERRORS:
        return []  # a shell that completes is no place for messages
    paths = state.left.column("path").to_pylist() if state else []
    return [str(path) for path in paths if str(path).startswith(incomplete)]


RevisionArgument = Annotated[
    str | None, typer.Argument(help="Branch or other revision.", autocompletion=complete_revision)
]
StrategyOption = Annotated[
    str,
    typer.Option(
        "--strategy", "-s", help=f"What settles conflicts: {', '.join(STRATEGIES)}.", autocompletion=complete_strategy
    ),
]
DriverOption = Annotated[
    list[str] | None,
    typer.Option("--strategy-option", "-X", help="GLOB:STRATEGY for some paths, the last that fits; may repeat."),
]
MainlineOption = Annotated[
    int | None, typer.Option("--mainline", "-m", min=1, help="Of a merge: against which parent, from 1.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only show what would be done; exits 1 on conflicts.")]
ContinueOption = Annotated[bool, typer.Option("--continue", help="Finish with what was settled.")]
AbortOption = Annotated[bool, typer.Option("--abort", help="Forget it; the branch was never touched.")]


def merge_command(
    revision: RevisionArgument = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Message of the merge commit.")] = None,
    strategy: StrategyOption = "manual",
    drivers: DriverOption = None,
    ff_only: Annotated[bool, typer.Option("--ff-only", help="Refuse if the branch has commits of its own.")] = False,
    no_ff: Annotated[bool, typer.Option("--no-ff", help="Make a merge commit even if it could simply move.")] = False,
    squash: Annotated[bool, typer.Option("--squash", help="One commit with one parent: not their history.")] = False,
    dry_run: DryRunOption = False,
    proceed: ContinueOption = False,
    abort: AbortOption = False,
    no_verify: NoVerifyOption = False,
    author: AuthorOption = None,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Merge a revision into the current branch: fast-forward, or three-way by path.

    With conflicts the branch is not moved and the exit code is 1: settle them with ds resolve, then --continue.

    \b
    Examples:
      ds merge augment
      ds merge augment -X 'labels/**:theirs' -X '*.png:union'
      ds merge augment --squash -m "Augmented"
      ds merge --continue
    """
    if ff_only and (no_ff or squash):
        raise UsageError("--ff-only goes with neither --no-ff nor --squash")
    forward: FastForward = "only" if ff_only else "never" if no_ff else "auto"
    opened = open_dataset(dataset)
    opened.repository.gate.skips = no_verify
    if _ended(opened, revision, proceed=proceed, abort=abort, json=json):
        return
    options = MergeOptions(_strategy(strategy), _drivers(drivers), forward, squash)
    job = merging.make_job(opened, "merge", revision or "", options=options, message=message, author=author)
    _do(opened, job, dry_run=dry_run, json=json)


def _picking(kind: Literal["revert", "cherry-pick"], about: str) -> Callable[..., None]:
    """Return the command that brings one commit's changes, or their opposite, onto the current branch."""

    def command(
        revision: RevisionArgument = None,
        mainline: MainlineOption = None,
        strategy: StrategyOption = "manual",
        drivers: DriverOption = None,
        dry_run: DryRunOption = False,
        proceed: ContinueOption = False,
        abort: AbortOption = False,
        no_verify: NoVerifyOption = False,
        author: AuthorOption = None,
        dataset: DatasetOption = None,
        json: JsonOption = False,
    ) -> None:
        opened = open_dataset(dataset)
        opened.repository.gate.skips = no_verify
        if _ended(opened, revision, proceed=proceed, abort=abort, json=json):
            return
        options = MergeOptions(_strategy(strategy), _drivers(drivers))
        job = merging.make_job(opened, kind, revision or "", options=options, author=author, mainline=mainline)
        _do(opened, job, dry_run=dry_run, json=json)

    command.__doc__ = about
    return command


revert_command = _picking(
    "revert",
    """Undo on the current branch what a commit changed, by a new commit. Conflicts are as in ds merge.

    \b
    Examples:
      ds revert HEAD
      ds revert 8ae99434 --dry-run
      ds revert main~2 -m 1
    """,
)
cherry_pick_command = _picking(
    "cherry-pick",
    """Repeat on the current branch what a commit changed, with its author and message. Conflicts are as in ds merge.

    \b
    Examples:
      ds cherry-pick augment
      ds cherry-pick 8ae99434 -s theirs
    """,
)


def conflicts_command(dataset: DatasetOption = None, json: JsonOption = False) -> None:
    """List the conflicts of the merge, revert or cherry-pick that is under way. Exits with 1 if some are left.

    \b
    Examples:
      ds conflicts
      ds conflicts --json
    """
    opened = open_dataset(dataset)
    state = merging.merge_file(opened).read()
    left = state.left.num_rows if state else 0
    if json:
        print_json("conflicts", conflicts_record(state))
    elif state is None:
        print_text(f"no merge is under way on {opened.branch_name or 'HEAD'}")
    else:
        how = state.how_of()
        rows = [(r["ours"], r["theirs"], how.get(r["path"], "-"), _shown(r)) for r in state.conflicts.to_pylist()]
        print_table(("OURS", "THEIRS", "SETTLED", "PATH"), rows)
    if left:
        raise typer.Exit(1)


def resolve_command(
    paths: Annotated[
        list[str] | None, typer.Argument(help="Files, or directories.", autocompletion=complete_conflict)
    ] = None,
    ours: Annotated[bool, typer.Option("--ours", help="Keep what the branch has, be it a file or a deletion.")] = False,
    theirs: Annotated[bool, typer.Option("--theirs", help="Take what they have, be it a file or a deletion.")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the files.")] = False,
    file: Annotated[Path | None, typer.Option("--file", help="Put this local file in the path's place.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All conflicts that are not settled yet.")] = False,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Say how conflicts are settled; nothing moves before ds merge --continue.

    \b
    Examples:
      ds resolve --theirs labels
      ds resolve --file merged.csv labels/all.csv
      ds resolve --ours --all
    """
    wanted: dict[How, bool] = {"ours": ours, "theirs": theirs, "delete": delete, "file": file is not None}
    chosen = [how for how, on in wanted.items() if on]
    if len(chosen) != 1:
        raise UsageError("choose one of --ours, --theirs, --delete and --file FILE")
    if bool(paths) == everything:
        raise UsageError("name paths, or say --all")
    if file is not None and (everything or len(paths or []) != 1):
        raise UsageError("--file is for one path")
    state = merging.resolve(open_dataset(dataset), paths or [], chosen[0], everything=everything, file=file)
    left = state.left.num_rows
    if json:
        print_json("conflicts", conflicts_record(state))
    elif left:
        print_text(f"{plural(left, 'conflict')} left")
    else:
        print_text("all conflicts are settled; finish with: ds merge --continue")


def conflicts_record(state: MergeState | None) -> dict[str, Any] | None:
    """Return what JSON says of a merge that is under way; None without one."""
    if state is None:
        return None
    how = state.how_of()
    return {
        "kind": state.job.kind,
        "branch": state.branch,
        "head": state.head,
        "source": state.job.source,
        "left": state.left.num_rows,
        "conflicts": [{**row, "settled": how.get(row["path"])} for row in state.conflicts.to_pylist()],
    }


def _ended(opened: Dataset, revision: str | None, *, proceed: bool, abort: bool, json: bool) -> bool:
    """Continue or abort, if that was asked for; else see that there is a revision."""
    if proceed + abort + (revision is not None) != 1:
        raise UsageError("name one revision, or say --continue or --abort")
    if proceed:
        _print_result(opened, merging.proceed(opened), json=json)
    elif abort:
        state = merging.abort(opened)
        if json:
            print_json("merge-aborted", {"kind": state.job.kind, "branch": state.branch, "head": state.head})
        else:
            print_text(f"{state.job.kind} of {state.job.source[:8]} aborted; {state.branch} is as it was")
    return proceed or abort


def _do(opened: Dataset, job: Job, *, dry_run: bool, json: bool) -> None:
    if not dry_run:
        _print_result(opened, merging.start(opened, job), json=json)
        return
    plan = merging.plan(opened, job)
    if plan is not None:
        _print_plan(opened, plan, json=json)
        if plan.conflicts.num_rows:
            raise typer.Exit(1)
    elif json:
        print_json("merge-plan", {"branch": opened.branch, "moves_to": job.source, "changes": [], "conflicts": []})
    else:
        print_text(f"{opened.branch} has no commit yet; it would simply move to {job.source[:8]}")


def _print_plan(opened: Dataset, plan: MergePlan, *, json: bool) -> None:
    conflicts = plan.conflicts.to_pylist()
    diff = opened.repository.diff_changes(opened.repository.head(opened.branch), plan.changes)
    if json:
        changes = diff.table.select(["path", "op"]).to_pylist()
        print_json("merge-plan", {"branch": opened.branch, "changes": changes, "conflicts": conflicts})
        return
    for row in diff.table.slice(0, _SHOWN).to_pylist():
        print_text(f"{row['op']}  {row['path']}")
    if len(diff) > _SHOWN:
        print_text(f"... and {len(diff) - _SHOWN:,} more (--json names all)")
    for row in conflicts[:_SHOWN]:
        print_text(f"conflict: {_shown(row)} (ours {row['ours']}, theirs {row['theirs']})")
    if len(conflicts) > _SHOWN:
        print_text(f"... and {len(conflicts) - _SHOWN:,} more")
    print_text(f"{plural(len(diff), 'change')}, {plural(len(conflicts), 'conflict')}; nothing was done")


def _shown(row: dict[str, Any]) -> str:
    return f"{row['path']}, which clashes with {row['clash']}" if row["clash"] else str(row["path"])


def _print_result(opened: Dataset, result: MergeResult, *, json: bool) -> None:
    if json:
        print_json("merge", {"result": result.kind, "commit": result.commit, "branch": opened.branch})
    else:
        print_text(f"{opened.branch}: {result.kind} to {result.commit[:8]}")


def _strategy(text: str) -> Any:
    return check_strategy(text, where="--strategy")


def _drivers(texts: list[str] | None) -> tuple[Driver, ...]:
    return tuple(Driver.parse(text) for text in texts or ())
