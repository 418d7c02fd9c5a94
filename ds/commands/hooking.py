"""Commands about hooks: hooks list, run, trust."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ds.commands.options import DatasetOption, JsonOption, complete_revision, open_dataset
from ds.conduct import TrustedHooks
from ds.errors import UsageError
from ds.output import print_json, print_text
from ds.worktree import WorkingDataset
from versioning.hooks import Hook, Proposal

RevisionArgument = Annotated[
    str | None,
    typer.Argument(help="The version whose hooks are meant; default: here.", autocompletion=complete_revision),
]


def hooks_list_command(
    revision: RevisionArgument = None, dataset: DatasetOption = None, json: JsonOption = False
) -> None:
    """List the hooks in .ds/hooks.yaml of a version, and whether those that run code are trusted.

    \b
    Examples:
      ds hooks list
      ds hooks list v1
    """
    opened = open_dataset(dataset)
    found = opened.repository.gate.hooks_of(opened.head() if revision is None else opened.resolve(revision))
    trusted = opened.repository.gate.trusts(found.digest)
    if json:
        hooks = [_record(hook) for hook in found.hooks]
        print_json("hooks", {"digest": found.digest or None, "trusted": trusted, "hooks": hooks})
        return
    for hook in found.hooks:
        note = " (runs code: not trusted)" if hook.runs_code and not trusted else ""
        print_text(f"{hook.id}  {','.join(hook.events)}  {','.join(hook.branches)}  {hook.shown()}{note}")
    if not found.hooks:
        print_text("no hooks; declare some in .ds/hooks.yaml")


def hooks_run_command(
    event: Annotated[str, typer.Option("--event", help="pre-commit or pre-merge.")] = "pre-commit",
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Ask the hooks of the current branch about what is staged. Exits with 5 if one refuses; nothing is committed.

    \b
    Examples:
      ds hooks run
    """
    if event not in ("pre-commit", "pre-merge"):
        raise UsageError(f"--event {event}: expected pre-commit or pre-merge")
    opened = open_dataset(dataset)
    staged, gate = opened.stage().read(), opened.repository.gate
    base = staged.base if staged.changes else opened.head()
    diff = opened.repository.diff_changes(base, staged.changes)
    proposal = Proposal(event, opened.branch, base, opened.author, "", lambda: diff)  # type: ignore[arg-type] # checked
    records = []
    for outcome in gate.outcomes(gate.hooks_of(base), proposal):
        result = "refused" if outcome.refusal else "passed" if outcome.is_trusted else "untrusted"
        reason, findings = outcome.refusal or ("it runs code: ds hooks trust" if not outcome.is_trusted else "", [])
        records.append({"id": outcome.hook.id, "result": result, "reason": reason, "findings": findings})
        if not json:
            print_text(f"{outcome.hook.id}: {result}{f': {reason}' if reason else ''}")
            for path, what in findings[:20]:
                print_text(f"  {path}{f': {what}' if what else ''}")
    if json:
        print_json("hooks-run", {"branch": opened.branch, "hooks": records})
    elif not records:
        print_text(f"no hook of {opened.branch} is for {event}")
    if any(record["result"] != "passed" for record in records):
        raise typer.Exit(5)


def hooks_trust_command(
    revision: RevisionArgument = None,
    revoke: Annotated[bool, typer.Option("--revoke", help="Trust them no longer.")] = False,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Let the hooks of a version run code on this machine, as you, until they change. Look at them first.

    What is trusted is .ds/hooks.yaml and the files of the version that its commands name, in this very repository; not
    what those load.

    \b
    Examples:
      ds hooks list && ds hooks trust
      ds hooks trust --revoke
    """
    opened = open_dataset(dataset)
    found = opened.repository.gate.hooks_of(opened.head() if revision is None else opened.resolve(revision))
    trusted = TrustedHooks(opened.settings.home)
    if not any(hook.runs_code for hook in found.hooks):
        raise UsageError("no hook there runs code; built-in ones need no trust")
    if revoke:
        trusted.remove(found.digest)
    else:
        trusted.add(found.digest, repository=opened.repository.uri)
    if json:
        print_json("hooks-trust", {"digest": found.digest, "trusted": not revoke})
        return
    for hook in found.hooks:
        if hook.runs_code:
            print_text(f"{'no longer trusted' if revoke else 'trusted'}: {hook.id}: {hook.shown()}")
    files = ", ".join(entry.path for entry in found.named)
    inside = isinstance(opened, WorkingDataset)
    if files and not revoke:
        print_text(f"  with {files} as of that version{', run where you have it checked out' if inside else ''}")


def _record(hook: Hook) -> dict[str, Any]:
    return {
        "id": hook.id,
        "kind": hook.kind,
        "value": hook.value,
        "events": hook.events,
        "branches": hook.branches,
        "paths": hook.paths,
        "runs_code": hook.runs_code,
    }
