"""Garbage collection beside a writer, and processes that die, at every single request."""

from __future__ import annotations

import contextlib
import os
from functools import cache
from typing import TYPE_CHECKING

import pytest

from sources import SourceUnavailableError
from tests.versioning.maintenance.places import DAY, Clock, ClockedStore, CrashError, make_repository, packed, reopened
from tests.versioning.samples import AUTHOR
from versioning import ChangeSet, CommitId, Repository
from versioning.errors import CollectingError, CorruptRepositoryError, ObjectsCollectedError
from versioning.maintenance import ExpirePolicy, check_repository, collect_garbage, expire_history

if TYPE_CHECKING:
    from collections.abc import Callable

STRIDE = 1 if os.environ.get("FOREBAY_DEEP") == "1" else 15
"""Quick runs take every fifteenth request, and begin at another one for each case."""


def content(start: int, count: int = 12) -> dict[str, bytes]:
    return {f"{number:03d}": b"content %d" % number for number in range(start, start + count)}


def commit(repository: Repository, branch: str, start: int, base: CommitId | None) -> CommitId:
    change = ChangeSet.of(packed(repository, content(start)))
    return repository.commit_changes(branch, change, message="", author=AUTHOR, base=base)


def check(repository: Repository, store: ClockedStore) -> None:
    store.quiet()
    report = check_repository(reopened(store))
    assert report.found == 0, report.findings
    for branch in repository.branches():
        for identity, made in repository.log(branch):
            assert repository.tree_of(identity).rows == made.stats.files


class Scene:
    """A repository with garbage: a commit on top of main that was thrown away, whose content somebody may make again.

    Args:
        condemned: Garbage has been condemned, and its grace period is over.
    """

    def __init__(self, *, condemned: bool) -> None:
        self.clock = Clock()
        self.store = ClockedStore(self.clock)
        self.repository = make_repository(self.store)
        self.head = commit(self.repository, "main", 0, None)
        self.repository.create_branch("side", self.head)
        self.lost = commit(self.repository, "side", 100, self.head)
        self.repository.delete_branch("side")
        self.staged = ChangeSet.of(packed(self.repository, content(100)))
        self.clock.sleep(8 * DAY)
        if condemned:
            assert collect_garbage(self.repository).condemned.total_objects
            self.clock.sleep(8 * DAY)
        self.store.quiet()
        self.acknowledged = [self.head]

    def fresh(self) -> Repository:
        return reopened(self.store)

    def make_again(self) -> None:
        """Upload and commit the same content as the garbage."""
        self.acknowledged.append(commit(self.fresh(), "main", 100, self.head))

    def commit_staged(self) -> None:
        """Commit what was uploaded long ago: its pack is condemned, too."""
        found = self.fresh().commit_changes("main", self.staged, message="", author=AUTHOR, base=self.head)
        self.acknowledged.append(found)

    def rescue(self) -> None:
        """Name the lost commit again, if it can still be read."""
        try:
            self.fresh().create_branch("rescued", self.lost)
        except CorruptRepositoryError as error:
            raise ObjectsCollectedError(error.key) from error

    def collect(self) -> None:
        collect_garbage(self.fresh())

    def verify(self) -> None:
        check(self.fresh(), self.store)
        history = {identity for identity, _ in self.fresh().log("main")}
        assert set(self.acknowledged) <= history


WRITERS: list[Callable[[Scene], None]] = [Scene.make_again, Scene.commit_staged, Scene.rescue]
REFUSALS = (CollectingError, ObjectsCollectedError)


def sampled(count: int, first: int = 0, stride: int = STRIDE) -> range:
    return range(1 + first % stride, count + 1, stride)


@cache
def requests_of(work: Callable[[Scene], None], *, condemned: bool) -> int:
    scene = Scene(condemned=condemned)
    with contextlib.suppress(*REFUSALS):
        work(scene)
    return scene.store.requests


def beside(scene: Scene, work: Callable[[Scene], None], other: Callable[[Scene], None], number: int) -> bool:
    """Run `work`, and `other` right before one of its requests; say whether both were accepted."""
    ok = True

    def interrupt(at: int, method: str, key: str) -> None:
        nonlocal ok
        if at == number:
            scene.store.before = None
            try:
                other(scene)
            except REFUSALS:
                ok = False

    scene.store.before = interrupt
    try:
        work(scene)
    except REFUSALS:
        return False
    return ok


@pytest.mark.parametrize("condemned", [False, True], ids=["to be condemned", "to be swept"])
@pytest.mark.parametrize("writer", WRITERS, ids=lambda each: each.__name__)
def test_a_collection_between_two_requests_of_a_writer_harms_nothing(
    writer: Callable[[Scene], None], condemned: bool
) -> None:
    count = requests_of(writer, condemned=condemned)
    for number in sampled(count, WRITERS.index(writer)):
        scene = Scene(condemned=condemned)
        beside(scene, writer, Scene.collect, number)
        scene.verify()
        scene.clock.sleep(9 * DAY)
        collect_garbage(scene.fresh())
        scene.verify()


@pytest.mark.parametrize("condemned", [False, True], ids=["condemning", "sweeping"])
@pytest.mark.parametrize("writer", WRITERS, ids=lambda each: each.__name__)
def test_a_writer_between_two_requests_of_a_collection_harms_nothing(
    writer: Callable[[Scene], None], condemned: bool
) -> None:
    count = requests_of(Scene.collect, condemned=condemned)
    refused = 0
    for number in sampled(count, WRITERS.index(writer)):
        scene = Scene(condemned=condemned)
        refused += not beside(scene, Scene.collect, writer, number)
        scene.verify()
        scene.clock.sleep(9 * DAY)
        collect_garbage(scene.fresh())
        scene.verify()
    if not condemned:  # while objects are deleted, who needs these is refused; while they are only listed, nobody is
        assert refused == 0


@pytest.mark.parametrize("condemned", [False, True], ids=["condemning", "sweeping"])
def test_two_collections_at_once_harm_nothing(condemned: bool) -> None:
    count = requests_of(Scene.collect, condemned=condemned)
    for number in sampled(count):
        scene = Scene(condemned=condemned)
        beside(scene, Scene.collect, Scene.collect, number)
        scene.verify()


@pytest.mark.parametrize("after_effect", [False, True], ids=["before the request", "after the request"])
@pytest.mark.parametrize("condemned", [False, True], ids=["condemning", "sweeping"])
def test_a_collection_that_dies_at_any_request_is_taken_up(condemned: bool, after_effect: bool) -> None:
    count = requests_of(Scene.collect, condemned=condemned)
    for number in sampled(count, after_effect):
        scene = Scene(condemned=condemned)
        scene.store.crash_at(number, after_effect=after_effect)
        with pytest.raises(CrashError):
            scene.collect()
        scene.verify()
        scene.clock.sleep(900)
        scene.make_again()  # a writer is never in the way of a dead collection, nor it in the writer's
        scene.verify()
        for _ in range(3):
            scene.clock.sleep(8 * DAY)
            collect_garbage(scene.fresh())
        scene.verify()
        assert f"repo/commits/{scene.lost[:2]}/{scene.lost}.json" not in scene.store.objects


def test_one_lost_answer_does_not_stop_a_collection_for_long() -> None:
    for condemned in (False, True):
        count = requests_of(Scene.collect, condemned=condemned)
        for number in sampled(count):
            scene = Scene(condemned=condemned)

            def lose(at: int, method: str, key: str, number: int = number) -> None:
                if at == number:
                    raise SourceUnavailableError("no answer")

            scene.store.after = lose
            try:
                scene.collect()
            except SourceUnavailableError:
                scene.verify()
                scene.clock.sleep(900)
                scene.collect()
            scene.verify()


@pytest.mark.parametrize("after_effect", [False, True], ids=["before the request", "after the request"])
def test_an_expiry_that_dies_at_any_request_has_happened_or_not(after_effect: bool) -> None:
    def expire(scene: Scene) -> None:
        expire_history(scene.fresh(), ExpirePolicy(newest=1))

    scene = Scene(condemned=False)
    scene.make_again()
    scene.store.quiet()
    expire(scene)
    count = scene.store.requests
    assert [identity for identity, _ in scene.fresh().log("main")] == [scene.acknowledged[-1]]
    for number in sampled(count, after_effect, min(STRIDE, 5)):
        scene = Scene(condemned=False)
        scene.make_again()
        scene.store.crash_at(number, after_effect=after_effect)
        with pytest.raises(CrashError):
            expire(scene)
        check(scene.fresh(), scene.store)
        length = len(list(scene.fresh().log("main")))
        assert length in (1, 2)
        expire(scene)
        assert len(list(scene.fresh().log("main"))) == 1
        for _ in range(2):
            scene.clock.sleep(8 * DAY)
            collect_garbage(scene.fresh())
        check(scene.fresh(), scene.store)
        assert f"repo/commits/{scene.head[:2]}/{scene.head}.json" not in scene.store.objects
