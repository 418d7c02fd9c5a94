"""Garbage collection beside writers on a real server: its times, its listings, its conditional writes."""

from __future__ import annotations

import secrets
import threading
import time
from typing import TYPE_CHECKING, cast

from sources import open_store
from tests.conftest import BUCKET
from tests.versioning.maintenance.places import packed
from tests.versioning.samples import AUTHOR, TINY
from versioning import ChangeSet, CommitId, Repository
from versioning.errors import CollectingError
from versioning.maintenance import CheckOptions, GcPolicy, GcReport, check_repository, collect_garbage

if TYPE_CHECKING:
    from sources import RepositoryStore
    from tests.services.weed import S3Server

GRACE = GcPolicy(grace_seconds=3)  # this server tells whole seconds; a commit of this test takes a fraction of one


def commit(repository: Repository, number: int) -> CommitId:
    """The same few contents again and again, so that a writer needs what was condemned."""
    files = {f"{number % 4}/{each}": b"%d" % (number % 4) for each in range(4)}
    change = ChangeSet.of(packed(repository, files), [f"{(number + 2) % 4}/{each}" for each in range(4)])
    return repository.commit_changes(
        "main", change, message=str(number), author=AUTHOR, base=repository.head("main"), allow_empty=True
    )


def test_collections_beside_a_writer_lose_nothing_that_was_acknowledged(s3: S3Server) -> None:
    prefix = f"gc/{secrets.token_hex(4)}/"

    def opened() -> Repository:
        return Repository.open(opened_store(s3), prefix)

    Repository.init(opened_store(s3), prefix, spec=TINY)
    for number in range(3):  # garbage
        writer = opened()
        writer.create_branch("lost", commit(writer, number))
        packs = packed(writer, {f"lost/{number}": b"lost %d" % number})
        head = writer.head("lost")
        writer.commit_changes("lost", ChangeSet.of(packs), message="", author=AUTHOR, base=head)
        writer.delete_branch("lost")
    reports: list[GcReport] = []
    done = threading.Event()

    def collect() -> None:
        while not done.is_set() or sum(each.deleted.total_objects for each in reports) == 0:
            reports.append(collect_garbage(opened(), GRACE))
            time.sleep(0.2)

    collector = threading.Thread(target=collect)
    collector.start()
    made: list[CommitId] = []
    refused = 0
    end = time.monotonic() + 8
    while time.monotonic() < end:
        writer = opened()
        try:
            made.append(commit(writer, len(made)))
            writer.create_branch("b", made[-1])
            writer.delete_branch("b")
        except CollectingError:
            refused += 1
    done.set()
    collector.join(30)
    assert not collector.is_alive()
    assert sum(each.deleted.total_objects for each in reports) > 0
    assert len(made) > refused
    history = [identity for identity, _ in opened().log("main")]
    assert set(made) <= set(history)
    assert check_repository(opened(), CheckOptions(deep=True)).found == 0


def opened_store(s3: S3Server) -> RepositoryStore:
    return cast("RepositoryStore", open_store(f"s3://{BUCKET}", s3.options))
