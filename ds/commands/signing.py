"""The command that checks signatures, verify-commit, and what `log --verify` shares with it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ds.commands.options import DatasetOption, JsonOption, complete_revision, open_dataset
from ds.dataset import Dataset
from ds.output import print_json, print_text
from ds.ranges import split_dataset
from versioning import CommitId
from versioning.signing import Verdict, Verified, verify

RequireOption = Annotated[
    bool, typer.Option("--require", help="Exit with 1 unless all are signed with the committer's own key.")
]
SignersOption = Annotated[
    Path | None,
    typer.Option(
        "--allowed-signers",
        help="Whose keys are whose, see ssh-keygen(1); default: $FOREBAY_ALLOWED_SIGNERS, or allowed_signers in "
        "$FOREBAY_HOME.",
    ),
]


class SignatureCheck:
    """Checks the signatures of commits one by one, and remembers whether one failed.

    Attributes:
        has_failed: Whether a signature was bad, or not good where that is required.
    """

    def __init__(self, opened: Dataset, signers: Path | None, *, require: bool) -> None:
        self.has_failed = False
        self._commits = opened.repository.commits
        self._signers = signers or opened.settings.allowed_signers
        self._require = require

    def look(self, commit: CommitId) -> Verified:
        """Check one commit."""
        found = verify(self._commits.read_whole(commit), allowed_signers=self._signers)
        if found.verdict == Verdict.BAD or (self._require and found.verdict != Verdict.GOOD):
            self.has_failed = True
        return found

    def said(self, commit: CommitId) -> str:
        """Check one commit, and say what was found."""
        found = self.look(commit)
        return (
            f"{found.verdict}{f', {found.principal}' if found.principal else ''}{f', {found.key}' if found.key else ''}"
        )


def verify_commit_command(
    revisions: Annotated[
        list[str], typer.Argument(metavar="[DATASET@]REV...", help="Commits.", autocompletion=complete_revision)
    ],
    require: RequireOption = False,
    signers: SignersOption = None,
    dataset: DatasetOption = None,
    json: JsonOption = False,
) -> None:
    """Check the signatures of commits: good, unknown key, bad or unsigned. Exits with 1 if one is bad.

    A good one was made with a key that the allowed signers' file gives to the committer.

    \b
    Examples:
      ds verify-commit main
      ds verify-commit v1 v2 --require --allowed-signers team.keys
    """
    records = []
    failed = False
    for revision in revisions:
        name, text = split_dataset(revision)
        opened = open_dataset(name or dataset)
        checks, commit = SignatureCheck(opened, signers, require=require), opened.resolve(text or None)
        if json:
            records.append({"commit": commit, **asdict(checks.look(commit))})
        else:
            print_text(f"{commit[:8]} {checks.said(commit)}")
        failed = failed or checks.has_failed
    if json:
        print_json("verify-commit", records)
    if failed:
        raise typer.Exit(1)
