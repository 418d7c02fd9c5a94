"""Commands that make working copies: clone, init."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ds.commands.checkout import check_out
from ds.commands.options import JsonOption, complete_dataset
from ds.output import errors, human_bytes, plural, print_json, print_text
from ds.settings import current_settings
from ds.worktree import WorkingDataset, clone, init
from versioning.worktree import UpdateReport

SparseOption = Annotated[
    list[str] | None, typer.Option("--sparse", help="Hold only files that match this pattern; may repeat.")
]


def clone_command(
    source: Annotated[
        str,
        typer.Argument(help="A dataset, ds://DATASET[@REV], or a repository.", autocompletion=complete_dataset),
    ],
    directory: Annotated[Path | None, typer.Argument(help="Where; default: named as the source, here.")] = None,
    branch: Annotated[str | None, typer.Option("--branch", "-b", help="Branch, tag or commit to check out.")] = None,
    sparse: SparseOption = None,
    no_checkout: Annotated[bool, typer.Option("--no-checkout", "-n", help="Write no files yet.")] = False,
    json: JsonOption = False,
) -> None:
    """Make a working copy: the files of a version in a directory, to look at, change and commit.

    Inside it, every command works on it without --dataset. Files come through the cache of the dataset, and straight
    from a repository on this machine. Run `ds checkout` in it to finish what was interrupted.

    \b
    Examples:
      ds clone digits
      ds clone s3://bucket/repo work --branch augment
      ds clone digits --sparse 'train/**' --sparse labels.csv
    """
    settings = current_settings()
    made = clone(source, directory, sparse=sparse or [], settings=settings)
    opened = WorkingDataset(made.root, settings=settings)
    revision = branch or made.revision or _first_branch(opened)
    report = UpdateReport()
    if revision is None or no_checkout:
        opened.be_on(revision or "main")
    else:
        report = check_out(opened, revision)
    if json:
        head = opened.copy.index().head
        print_json(
            "clone", {"directory": str(made.root), "commit": head.commit, "branch": head.branch, **_counts(report)}
        )
        return
    if revision is None:
        errors().print("the repository has no commit yet", markup=False)
    print_text(f"{made.root}: {plural(report.files, 'file')}, {human_bytes(report.bytes)}")


def init_command(
    place: Annotated[str, typer.Argument(help="A directory, or the URI of a repository.")] = ".",
    json: JsonOption = False,
) -> None:
    """Create a repository: in a directory, whose files can be added then, or at a URI, to be cloned.

    \b
    Examples:
      ds init && ds add . && ds commit -m "First"
      ds init s3://bucket/repo && ds clone s3://bucket/repo work
    """
    uri, root = init(place, current_settings())
    if json:
        print_json("init", {"repository": uri, "directory": str(root) if root else None})
        return
    print_text(f"repository {uri}")
    if root is not None:
        print_text(f"working copy {root}")


def _first_branch(opened: WorkingDataset) -> str | None:
    branches = opened.repository.branches()
    return "main" if "main" in branches else next(iter(branches), None)


def _counts(report: UpdateReport) -> dict[str, int]:
    return {"written": report.written, "written_bytes": report.written_bytes, "removed": report.removed}
