from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.services import ssh
from tests.services.requiring import require
from tests.versioning.samples import AUTHOR, entry, tiny_repository
from versioning import ChangeSet, Commit, CommitId, Repository, SigningError, SshSigner, Verdict, verify
from versioning.signing import email_of

if TYPE_CHECKING:
    from pathlib import Path


def make_key(directory: Path, name: str) -> Path:
    key = directory / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(key)], check=True)
    return key


def public(key: Path) -> str:
    return key.with_name(f"{key.name}.pub").read_text().strip()


@pytest.fixture(name="key")
def _key(tmp_path: Path) -> Path:
    require(ssh.missing())
    return make_key(tmp_path, "ada")


@pytest.fixture(name="signers")
def _signers(tmp_path: Path, key: Path) -> Path:
    file = tmp_path / "signers"
    file.write_text(f"ada@example.org {public(key)}\n")
    return file


def commit(repository: Repository, number: int = 1, author: str = AUTHOR) -> CommitId:
    change = ChangeSet.of([entry("a", number)])
    return repository.commit_changes("main", change, message="m", author=author, base=repository.head("main"))


def signed(repository: Repository, key: Path, **options: str) -> Commit:
    repository.work.sign = SshSigner(key)
    identity = commit(repository, **options)  # type: ignore[arg-type]
    return Repository.open(repository.store, repository.prefix).commits.read_whole(identity)


def test_a_signed_commit_is_good_and_its_id_covers_the_signature(key: Path, signers: Path) -> None:
    repository = tiny_repository()
    made = signed(repository, key)
    found = verify(made, allowed_signers=signers)
    assert (found.verdict, found.principal) == (Verdict.GOOD, "ada@example.org")
    assert found.key.startswith("ED25519 SHA256:")
    unsigned = repository.commits.write(replace(made, signature=""))
    assert unsigned != repository.resolve("main")
    assert verify(replace(made, signature=""), allowed_signers=signers).verdict == Verdict.UNSIGNED


@pytest.mark.parametrize("field", ["message", "author", "tree", "parents", "meta"])
def test_whatever_is_changed_makes_the_signature_bad(key: Path, signers: Path, field: str) -> None:
    made = signed(tiny_repository(), key)
    other = {"parents": (CommitId("0" * 64),), "meta": {"x": 1}}.get(field, "0" * 64)
    assert verify(replace(made, **{field: other}), allowed_signers=signers).verdict == Verdict.BAD  # type: ignore[arg-type]


def test_a_signature_for_another_purpose_is_bad(key: Path, signers: Path) -> None:
    made = signed(tiny_repository(), key)
    command = ["ssh-keygen", "-Y", "sign", "-n", "git", "-f", str(key)]
    for signature in (subprocess.run(command, input=b"x", capture_output=True, check=True).stdout.decode(), "nonsense"):
        assert verify(replace(made, signature=signature), allowed_signers=signers).verdict == Verdict.BAD


def test_another_key_and_another_persons_key_are_unknown(tmp_path: Path, key: Path, signers: Path) -> None:
    eve = make_key(tmp_path, "eve")
    assert verify(signed(tiny_repository(), eve), allowed_signers=signers).verdict == Verdict.UNKNOWN_KEY
    signers.write_text(f"{signers.read_text()}eve@example.org {public(eve)}\n")
    assert verify(signed(tiny_repository(), eve), allowed_signers=signers).verdict == Verdict.UNKNOWN_KEY
    assert verify(signed(tiny_repository(), key), allowed_signers=None).verdict == Verdict.UNKNOWN_KEY
    nobody = signed(tiny_repository(), key, author="Ada of Example")
    assert verify(nobody, allowed_signers=signers).verdict == Verdict.UNKNOWN_KEY


def test_a_key_counts_for_the_time_of_the_commit(key: Path, signers: Path) -> None:
    made = signed(tiny_repository(), key)
    for options, verdict in (("20200101", Verdict.UNKNOWN_KEY), ("20990101", Verdict.GOOD)):
        signers.write_text(f'ada@example.org valid-before="{options}" {public(key)}\n')
        assert verify(made, allowed_signers=signers).verdict == verdict


def test_a_rebased_commit_is_signed_as_it_is_written(key: Path, signers: Path) -> None:
    repository = tiny_repository()
    base = commit(repository)
    repository.commit_changes("main", ChangeSet.of([entry("b", 1)]), message="b", author=AUTHOR, base=base)
    repository.work.sign = SshSigner(key)
    change = ChangeSet.of([entry("c", 1)])
    made = repository.commit_changes("main", change, message="c", author=AUTHOR, base=base)
    assert verify(repository.commits.read_whole(made), allowed_signers=signers).verdict == Verdict.GOOD


def test_what_cannot_be_signed_is_not_committed(tmp_path: Path) -> None:
    repository = tiny_repository()
    repository.work.sign = SshSigner(tmp_path / "none")
    with pytest.raises(SigningError, match="nothing was committed"):
        commit(repository)
    assert repository.head("main") is None


def test_a_missing_file_of_signers_is_an_error(tmp_path: Path, key: Path) -> None:
    with pytest.raises(SigningError, match="there is no file"):
        verify(signed(tiny_repository(), key), allowed_signers=tmp_path / "none")


def test_addresses_are_found_in_names() -> None:
    wanted = {"Ada <ada@example.org>": "ada@example.org", "ada@host": "ada@host", "Ada": "Ada", "Ada L": "", "": ""}
    assert {text: email_of(text) for text in wanted} == wanted
