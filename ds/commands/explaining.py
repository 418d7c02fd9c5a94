"""Command that says where the bytes of a file are, and why a read is slow: explain."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cache_runtime.explaining import CandidateState, Explanation, GroupState
from ds.commands.options import DatasetOption, JsonOption, complete_target, open_target
from ds.errors import UsageError
from ds.explaining import PathReport, describe_verdict, explain_path
from ds.output import human_bytes, plural, print_json, print_text

_GROUPS = 8


def explain_command(
    target: Annotated[str, typer.Argument(help="[DATASET][@REVISION]/PATH.", autocompletion=complete_target)],
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Say where a file's bytes are, who owns them, why they are not in this node's cache, and what to do.

    Nothing is fetched. Why a block is missing is remembered for some million objects, then forgotten.

    \b
    Examples:
      ds explain digits@main/images/3/0042.png
      ds explain @v1/labels/0042.json --json
    """
    opened, where = open_target(target, dataset)
    if not where.path:
        raise UsageError(f"{target!r} names no file; write [DATASET][@REVISION]/PATH")
    commit = opened.resolve(where.revision)
    report = explain_path(opened, commit, where.path)
    why, do = describe_verdict(report, name=opened.name)
    if json:
        print_json("explain", {**_report(report), "why": why, "next_step": do or None})
        return
    print_text(f"{opened.name}@{commit[:8]}/{report.path}  {human_bytes(report.location.length)}")
    _print_object(report)
    if report.explanation is not None:
        _print_cached(report.explanation, opened.opened.runtime.metadata.name if opened.opened.runtime else "")
    print_text(f"  why      {why}")
    if do:
        print_text(f"  do       {do}")


def _print_object(report: PathReport) -> None:
    location = report.location
    print_text(f"  object   {location.object.uri}")
    print_text(f"  version  {location.object.version}")
    if location.length != location.object.size:
        size = human_bytes(location.object.size)
        print_text(f"  bytes    {location.offset:,} to {location.offset + location.length:,} of its {size}")


def _print_cached(found: Explanation, runtime: str) -> None:
    blocks = sum(len(group.blocks) for group in found.groups)
    missing = sum(len(group.missing) for group in found.groups)
    state = f"{plural(blocks, 'block')} here" if not missing else f"{missing:,} of {plural(blocks, 'block')} not here"
    print_text(f"  cache    {runtime}: {state}")
    for group in found.groups[:_GROUPS]:
        _print_candidates(group, many=len(found.groups) > 1)
    if len(found.groups) > _GROUPS:
        print_text(f"  ... and {len(found.groups) - _GROUPS:,} parts more (--json names them)")


def _print_candidates(group: GroupState, *, many: bool) -> None:
    part = f" of blocks {group.blocks[0]} to {group.blocks[-1]}" if many else ""
    for number, state in enumerate(group.candidates):
        role = f"owner{part}" if number == 0 else "next"
        print_text(f"  {role:<8} {state.name} {state.url} {_describe(state)}")


def _describe(state: CandidateState) -> str:
    has = {True: "has it", False: "does not have it", None: "does not answer"}[state.has_it]
    notes = ["this node"] * state.is_self + ["left alone for now"] * state.left_alone
    return f"{has} ({', '.join(notes)})" if notes else has


def _report(report: PathReport) -> dict[str, Any]:
    location, found = report.location, report.explanation
    return {
        "path": report.path,
        "commit": report.commit,
        "uri": location.object.uri,
        "version": location.object.version,
        "object_bytes": location.object.size,
        "offset": location.offset,
        "length": location.length,
        "verdict": report.verdict,
        "id": location.object.id.hex(),
        "cached": found is not None and found.cached,
        "reason": None if found is None else found.reason,
        "earlier": None if report.earlier is None else vars(report.earlier),
        "groups": [] if found is None else [_group(group) for group in found.groups],
    }


def _group(group: GroupState) -> dict[str, Any]:
    return {
        "offset": group.offset,
        "length": group.length,
        "blocks": list(group.blocks),
        "missing": list(group.missing),
        "candidates": [
            {name: getattr(state, name) for name in ("name", "url", "is_self", "has_it", "left_alone")}
            for state in group.candidates
        ],
    }
