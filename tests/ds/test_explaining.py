from __future__ import annotations

import pytest

from cache_runtime.explaining import CandidateState, Explanation, GroupState
from cache_runtime.store.ghosts import MissReason
from ds.explaining import EarlierVersion, Verdict, judge
from versioning import CommitId


def candidate(*, has_it: bool | None = False, is_self: bool = False) -> CandidateState:
    return CandidateState("w", "http://w", is_self, has_it, False)


def explanation(
    *candidates: CandidateState, reason: MissReason | None = MissReason.NEVER_CACHED, cached: bool = False
) -> Explanation:
    group = GroupState(0, 1, (0,), () if cached else (0,), candidates)
    return Explanation("s3://b/k", "00", "v", cached, reason, None, (group,))


CACHED = EarlierVersion(CommitId("a" * 64), cached=True)
GONE = EarlierVersion(CommitId("a" * 64), cached=False)
ME = candidate(is_self=True)
LOST = candidate(has_it=None)
HAS = candidate(has_it=True)


@pytest.mark.parametrize(
    ("found", "earlier", "verdict"),
    [
        (explanation(cached=True, reason=None), None, Verdict.CACHED),
        (explanation(), None, Verdict.NEVER_CACHED),
        (explanation(), CACHED, Verdict.NEW_VERSION),
        (explanation(), GONE, Verdict.NEVER_CACHED),
        (explanation(reason=MissReason.EVICTED), CACHED, Verdict.EVICTED),
        (explanation(reason=MissReason.NOT_ADMITTED), None, Verdict.NOT_ADMITTED),
        (explanation(reason=MissReason.CORRUPT), None, Verdict.CORRUPT),
        (explanation(reason=MissReason.STORE_OFF), None, Verdict.STORE_OFF),
        (explanation(LOST, HAS), None, Verdict.AT_WORKER),
        (explanation(LOST, ME), None, Verdict.WORKER_LOST),
        (explanation(LOST, ME), CACHED, Verdict.NEW_VERSION),
        (explanation(ME, LOST), None, Verdict.NEVER_CACHED),
        (explanation(ME, LOST, reason=MissReason.EVICTED), None, Verdict.EVICTED),
        (explanation(candidate(), ME, reason=MissReason.EVICTED), None, Verdict.EVICTED),
        (explanation(LOST, reason=MissReason.EVICTED), None, Verdict.WORKER_LOST),
    ],
)
def test_the_verdict_follows_from_what_was_seen(
    found: Explanation, earlier: EarlierVersion | None, verdict: Verdict
) -> None:
    assert judge(found, earlier) == verdict
