"""Commands that keep a repository whole and small: fsck, gc, expire."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from ds.commands.options import DatasetOption, JsonOption, complete_revision, open_dataset
from ds.dataset import Dataset
from ds.durations import human_seconds
from ds.errors import UsageError
from ds.exit_codes import Exit
from ds.maintaining import StageProgress, check_nothing_is_staged, expire_policy, external_stat, gc_policy
from ds.output import errors, human_bytes, plural, print_json, print_record, print_table, print_text
from ds.settings import current_settings
from versioning.maintenance import (
    CheckOptions,
    CheckReport,
    ExpireReport,
    GcReport,
    Tally,
    check_repository,
    collect_garbage,
    expire_history,
    list_live,
)
from versioning.maintenance.operations import operations
from versioning.names import encode_ref

_SHOWN = 100


def fsck_command(
    deep: Annotated[bool, typer.Option("--deep", help="Read all bytes and compare them with their hashes.")] = False,
    external: Annotated[
        bool, typer.Option("--external", help="Ask the sources whether imported files are still what they were.")
    ] = False,
    incremental: Annotated[
        bool, typer.Option("--incremental", help="Skip what an earlier check of this machine found good.")
    ] = False,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Check that everything that branches and tags need is there and undamaged. Exits with 1 if something is not.

    Commits and tree nodes are read and compared with their ids, packs and blobs with what the store lists; --deep reads
    those, too. Nothing is written to the repository. With --incremental a check that was interrupted goes on.

    \b
    Examples:
      ds fsck
      ds fsck --deep --incremental
      ds fsck --external
    """
    opened = open_dataset(dataset)
    repository = opened.repository
    options = CheckOptions(
        deep=deep,
        external=external_stat(opened.opened) if external else None,
        journal=current_settings().home / "fsck" / repository.spec.id if incremental else None,
    )
    with StageProgress("checking") as progress:
        report = check_repository(repository, options, on_progress=progress)
    if json:
        found = [{**asdict(each), "next_step": each.next_step} for each in report.findings]
        print_json("fsck", {**asdict(report), "findings": found})
    else:
        _print_check(report)
    if report.found:
        raise typer.Exit(Exit.NO)


def gc_command(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what nothing needs.")] = False,
    live: Annotated[bool, typer.Option("--list-live", help="Print the keys of all objects that are needed.")] = False,
    history: Annotated[bool, typer.Option("--history", help="Show what gc and expire did before.")] = False,
    grace: Annotated[
        str | None, typer.Option("--grace", help="Keep what is younger, and wait so long; default: 7d.")
    ] = None,
    now: Annotated[
        bool,
        typer.Option("--now", help="Delete at once what no commit needs: loses what others stage or write just now."),
    ] = False,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Delete what no branch, tag or recent reflog needs, a grace period after it was condemned.

    The first run condemns what is unneeded and older than the grace period; a run after another grace period deletes
    what is still unneeded then, and condemns anew. So let it run every day or week, beside all other work. The sources
    of imported files are never touched. It may be interrupted at any time.

    \b
    Examples:
      ds gc --dry-run
      ds gc
      ds gc --list-live
    """
    if dry_run + live + history > 1:
        raise UsageError("--dry-run, --list-live and --history do not go together")
    opened = open_dataset(dataset)
    if history:
        _print_operations(opened, json=json)
        return
    policy = gc_policy(grace, now=now, by=current_settings().author)
    if now and not (dry_run or live):
        check_nothing_is_staged(opened)
    with StageProgress("gc") as progress:
        if live:
            for key in list_live(opened.repository, policy, on_progress=progress):
                print_record({"key": key}) if json else print_text(key)
            return
        report = collect_garbage(opened.repository, policy, dry_run=dry_run, on_progress=progress)
    if json:
        print_json("gc", _gc_document(report))
    else:
        _print_collected(report)


def expire_command(
    keep: Annotated[
        str | None, typer.Option("--keep", help="An age such as 30d, or a number of commits of each branch.")
    ] = None,
    keep_tagged: Annotated[bool, typer.Option("--keep-tagged", help="Keep all that tags lead to, too.")] = False,
    branch: Annotated[
        list[str] | None,
        typer.Option("--branch", "-b", help="Only this branch; repeat for more.", autocompletion=complete_revision),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Shorten the history: older commits are cut off, and ds gc deletes what only they need.

    The last commit of each branch and every tagged commit stay. Ids do not change. What was cut off cannot be brought
    back by an option: look with --dry-run first.

    \b
    Examples:
      ds expire --keep 30d --dry-run
      ds expire --keep 30d --keep-tagged
      ds expire --keep 20 --branch nightly
    """
    opened = open_dataset(dataset)
    policy = expire_policy(
        keep,
        keep_tagged=keep_tagged,
        by=current_settings().author,
        now=datetime.now(UTC),
        day=timedelta(days=1),
    )
    known = opened.repository.branches()
    for name in branch or ():
        if name not in known:
            raise UsageError(f"no such branch: {name}; list them with: ds branch")
    names = [encode_ref(name) for name in branch or ()]
    report = expire_history(opened.repository, policy, branches=names, dry_run=dry_run)
    if json:
        print_json("expire", asdict(report))
    else:
        _print_expired(report)


def _print_check(report: CheckReport) -> None:
    for finding in report.findings[:_SHOWN]:
        needs = ", ".join(part for part in (finding.ref, finding.commit[:12], finding.path) if part)
        print_text(f"{finding.kind}  {finding.object}: {finding.detail}{f' (needed by {needs})' if needs else ''}")
        print_text(f"    {finding.next_step}")
    if report.found > _SHOWN:
        print_text(f"... and {report.found - _SHOWN:,} more; see all of them with --json")
    checked = [
        plural(report.refs, "ref"),
        plural(report.commits, "commit"),
        plural(report.nodes, "tree node"),
        f"{report.objects:,} packs and blobs",
    ]
    if report.bytes_read:
        checked.append(f"{human_bytes(report.bytes_read)} of their bytes")
    if report.external_objects:
        checked.append(plural(report.external_objects, "external object"))
    if report.skipped_leaves:
        checked.append(f"{report.skipped_leaves:,} of the tree nodes known from before")
    if report.log_gaps:
        checked.append(f"logs of branches ({plural(report.log_gaps, 'line')} never written)")
    verdict = "all good" if not report.found else plural(report.found, "finding")
    print_text(f"checked {', '.join(checked)}: {verdict}")


def _print_collected(report: GcReport) -> None:
    if report.held_by:
        print_text(
            f"nothing was deleted: {report.held_by} holds a lease that is older than the list of condemned objects"
        )
        return
    if report.deleted.total_objects or report.kept:
        print_text(f"deleted {_tally(report.deleted)}; {plural(report.kept, 'condemned object')} kept")
    if report.dry_run:
        print_text(f"nothing needs {_tally(report.condemned)}; {report.live_objects:,} objects are needed")
    elif report.condemned.total_objects:
        print_text(f"condemned {_tally(report.condemned)}; {report.live_objects:,} objects are needed")
    elif report.live_objects is not None or report.unchanged:
        print_text("nothing to condemn")
    if report.waits_seconds:
        errors().print(f"what is condemned may be deleted in {human_seconds(report.waits_seconds)}, by: ds gc")


def _tally(tally: Tally) -> str:
    parts = [f"{count:,} {kind.folder.rstrip('/')}" for kind, count in tally.objects.items() if count]
    listed = f" ({', '.join(parts)})" if parts else ""
    return f"{plural(tally.total_objects, 'object')}, {human_bytes(tally.total_bytes)}{listed}"


def _gc_document(report: GcReport) -> dict[str, object]:
    return {
        "deleted": report.deleted.as_json(),
        "kept": report.kept,
        "condemned": report.condemned.as_json(),
        "live_objects": report.live_objects,
        "waits_seconds": report.waits_seconds,
        "held_by": report.held_by,
        "unchanged": report.unchanged,
        "dry_run": report.dry_run,
    }


def _print_operations(opened: Dataset, *, json: bool) -> None:
    found = list(operations(opened.repository))
    if json:
        print_json("gc-history", [asdict(each) for each in found])
        return
    rows = [(each.at, each.kind, each.by, _details(dict(each.details))) for each in found]
    print_table(("AT", "WHAT", "BY", "DETAILS"), rows)


def _details(details: dict[str, object]) -> str:
    parts = []
    for name, value in details.items():
        if isinstance(value, dict):
            if value.get("objects"):
                parts.append(f"{value['objects']:,} {name}")
        elif value not in (None, []):
            parts.append(f"{name} {value}")
    return ", ".join(parts)


def _print_expired(report: ExpireReport) -> None:
    verb = "would stay" if report.dry_run else "stay"
    for name, count in report.cut_at.items():
        print_text(f"{name}: {plural(count, 'commit')} {verb}")
    if not report.hidden:
        print_text("nothing to cut off")
        return
    done = "would be" if report.dry_run else "is"
    print_text(f"the history before {plural(len(report.hidden), 'commit')} {done} cut off")
    if not report.dry_run:
        errors().print("what only it needs is deleted by ds gc, when the grace period is over")
