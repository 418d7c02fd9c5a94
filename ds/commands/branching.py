"""Commands about refs: branch, switch, tag, reflog."""

from __future__ import annotations

import difflib
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ds.commands.options import DatasetOption, JsonOption, complete_revision, open_dataset
from ds.commands.pathspecs import wants_pager
from ds.errors import UsageError
from ds.output import print_json, print_text
from ds.paging import paged
from versioning import RevisionNotFoundError, check_ref_name

if TYPE_CHECKING:
    from ds.dataset import Dataset


def branch_command(
    name: Annotated[
        str | None,
        typer.Argument(help="Branch to create; default: list them.", autocompletion=complete_revision),
    ] = None,
    start: Annotated[
        str | None,
        typer.Argument(help="Where it starts; default: here. With -m its new name.", autocompletion=complete_revision),
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", "-D", help="Delete the branch; its commits stay.")] = False,
    move: Annotated[bool, typer.Option("--move", "-m", help="Rename the branch.")] = False,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Move a branch that exists, even if that leaves commits behind.")
    ] = False,
    protect: Annotated[
        bool | None, typer.Option("--protect/--unprotect", help="Let it only move forward: no deletion, no force.")
    ] = None,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """List branches, create, move, rename, protect or delete one.

    \b
    Examples:
      ds branch
      ds branch hotfix main~3
      ds branch -m hotfix release
      ds branch --protect main
      ds branch -D augment
    """
    opened = open_dataset(dataset)
    if sum([delete, move, force, protect is not None]) > 1:
        raise UsageError("choose one of --delete, --move, --force, --protect and --unprotect")
    if name is None:
        if delete or move or force or protect is not None:
            raise UsageError("which branch? see: ds branch --help")
        _list_branches(opened, json=json)
    elif delete:
        _refuse_current(opened, name)
        opened.repository.delete_branch(name, author=opened.author)
        _say_branch(f"deleted branch {name}", json, branch=name, commit=None)
    elif move:
        if start is None:
            raise UsageError("-m needs the old name and the new one: ds branch -m OLD NEW")
        opened.repository.rename_branch(name, start, author=opened.author)
        if name == opened.branch_name:
            opened.be_on(start)
        at = opened.repository.head(start)
        _say_branch(f"renamed branch {name} to {start}", json, branch=start, commit=at, before=name)
    elif protect is not None:
        opened.repository.protect_branch(name, protected=protect, author=opened.author)
        shown = "protected" if protect else "not protected"
        _say_branch(f"branch {name} is {shown}", json, branch=name, protected=protect)
    elif force:
        _refuse_current(opened, name)
        at = opened.resolve(start)
        before = opened.repository.move_branch(name, at, author=opened.author, force=True, action="branch -f")
        was = f" (was {before[:8]})" if before else ""
        _say_branch(f"branch {name} at {at[:8]}{was}", json, branch=name, commit=at, before=before)
    else:
        at = opened.resolve(start)
        opened.create_branch(name, at)
        _say_branch(f"branch {name} at {at[:8]}", json, branch=name, commit=at)


def switch_command(
    name: Annotated[str, typer.Argument(help="The branch.", autocompletion=complete_revision)],
    create: Annotated[bool, typer.Option("--create", "-c", help="Create it here first.")] = False,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Put the dataset on a branch: what import, add and commit work on.

    \b
    Examples:
      ds switch main
      ds switch -c experiment
    """
    opened = open_dataset(dataset)
    if create and opened.head() is None and not opened.repository.branches():
        check_ref_name(name, what="branch")
        opened.be_on(name)  # the first commit makes it
    elif create:
        opened.create_branch(name, opened.resolve(None))
        opened.be_on(name)
    else:
        opened.switch(name)
    _say_branch(f"on branch {name}", json, branch=name, commit=opened.head())


def tag_command(
    name: Annotated[str | None, typer.Argument(help="Tag to create; default: list them.")] = None,
    revision: Annotated[
        str | None, typer.Argument(help="What it names; default: here.", autocompletion=complete_revision)
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", hidden=True, help="Refused: a tag is for ever.")] = False,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """List tags, or give a version a name that never moves and cannot be deleted.

    \b
    Examples:
      ds tag v1
      ds tag paper main~2
    """
    opened = open_dataset(dataset)
    if delete:
        raise UsageError("tags never move and are never deleted, so that a name means one version for ever")
    if name is not None:
        at = opened.resolve(revision)
        opened.repository.create_tag(name, at)
        if json:
            print_json("tag", {"tag": name, "commit": at})
        else:
            print_text(f"tag {name} at {at[:8]}")
        return
    tags = opened.repository.tags()
    if json:
        print_json("tags", tags)
        return
    for found in sorted(tags):
        print_text(f"{found} {tags[found][:8]}")


def reflog_command(
    context: typer.Context,
    branch: Annotated[
        str | None, typer.Argument(help="The branch; default: the current one.", autocompletion=complete_revision)
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Show so many moves.")] = None,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Show how a branch moved, newest first, with the name that each earlier state has: BRANCH@{N}.

    Works for deleted branches too: what they named can be found, and named again.

    \b
    Examples:
      ds reflog
      ds reflog augment -n 3
      ds branch rescued main@{1}
    """
    opened = open_dataset(dataset)
    name = branch or opened.branch
    state = opened.repository.refs.branch(name)
    if state is None and (branch or opened.repository.branches()):
        raise RevisionNotFoundError(name, detail="no such branch", near=_near(opened, name))
    top = state.sequence if state else 0
    updates = (each for number, each in enumerate(opened.repository.branch_log(name)) if not limit or number < limit)
    if json:
        print_json("reflog", {"branch": name, "moves": [asdict(each) for each in updates]})
        return
    with paged(wants_pager(context)):
        for each in updates:
            at = each.after[:8] if each.after else "deleted "
            print_text(f"{at} {name}@{{{top - each.sequence}}} {each.updated_at} {each.author}: {each.action}")


def _list_branches(opened: Dataset, *, json: bool) -> None:
    states, current = opened.repository.refs.branch_states(), opened.branch_name
    if current is None and not json:
        print_text(f"* (HEAD detached at {(opened.head() or '')[:8]})")
    if json:
        branches = {name: state.commit for name, state in states.items()}
        protected = [name for name, state in states.items() if state.protected]
        print_json("branches", {"current": current, "branches": branches, "protected": protected})
        return
    for name, state in sorted(states.items()):
        mark = " (protected)" if state.protected else ""
        print_text(f"{'*' if name == current else ' '} {name} {(state.commit or '')[:8]}{mark}")


def _say_branch(text: str, json: bool, **record: object) -> None:
    if json:
        print_json("branch", record)
    else:
        print_text(text)


def _near(opened: Dataset, name: str) -> list[str]:
    return difflib.get_close_matches(name, opened.repository.branches(), n=3, cutoff=0.5)


def _refuse_current(opened: Dataset, name: str) -> None:
    if name == opened.branch_name:
        raise UsageError(
            f"the dataset is on {name}; switch to another branch first: ds switch main; or move it: ds reset --to REV"
        )
