from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_runtime.peers import DnsMembers, FileMembers, PeerSecurity, StaticMembers
from dataset_controller import CacheRuntime, Dataset, ManifestError, open_peers, parse_manifest
from dataset_controller.peering import security_of
from dataset_controller.sharing import plan_share

if TYPE_CHECKING:
    from pathlib import Path

DATASET = """\
apiVersion: forebay.dev/v1alpha1
kind: Dataset
metadata: {{name: pets}}
spec:
  mounts: [{{name: raw, uri: "file:///raw", path: raw}}]
  repo: {{uri: "file:///repo"}}
  cache: {{runtimeRef: {{name: local}}{more}}}
"""
RUNTIME = """\
apiVersion: forebay.dev/v1alpha1
kind: CacheRuntime
metadata: {{name: local}}
spec:
  tiers: {tiers}
  workers: {workers}
"""
TIER = "[{path: /cache, capacity: 1Gi}]"
ONE = "{members: [{name: a, url: 'http://a:7070'}]}"


def dataset(more: str = "") -> Dataset:
    (found,) = parse_manifest(DATASET.format(more=more), source="f", variables={})
    assert isinstance(found, Dataset)
    return found


def runtime(workers: str = "null", tiers: str = TIER) -> CacheRuntime:
    (found,) = parse_manifest(RUNTIME.format(tiers=tiers, workers=workers), source="f", variables={})
    assert isinstance(found, CacheRuntime)
    return found


@pytest.mark.parametrize(
    ("workers", "tiers", "message"),
    [
        ("{}", TIER, "one of members, file and dns, found none"),
        ("{file: /a, dns: {host: b}}", TIER, "found file and dns"),
        ("{members: [{name: a, url: 'ftp://a'}]}", TIER, "its URL must be http"),
        ("{members: [{name: a, url: 'http://u:secret@a'}]}", TIER, "its URL must be http"),
        ("{members: [{name: a, url: 'http://a'}, {name: a, url: 'http://b'}]}", TIER, "two members"),
        ("{members: [{name: a, url: 'http://a', weight: 0}]}", TIER, "greater than 0"),
        ("{members: [{nmae: a, url: 'http://a'}]}", TIER, "did you mean 'name'?"),
        ("{file: /a, token: secret}", TIER, "did you mean 'tokenFile'?"),
        ("{file: relative}", TIER, "match"),
        ("{file: /a, tls: {certFile: /c}}", TIER, "go together"),
        ("null", "[]", "at least 1"),
        ("null", "[{path: /a, capacity: 1Gi}, {path: /a/b, capacity: 1Gi}]", "share a directory"),
        ("null", "[{path: /a, capacity: 1Gi}, {path: /b, capacity: 4Mi}]", "capacity of /b is 4194304 bytes; .* 32Mi"),
    ],
)
def test_a_cache_that_cannot_be_is_refused(workers: str, tiers: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message.replace("?", r"\?")) as caught:
        runtime(workers, tiers)
    assert "secret" not in str(caught.value)


def test_workers_are_named_by_a_list_a_file_or_a_dns_name(tmp_path: Path) -> None:
    file = tmp_path / "workers"
    file.write_text("a http://a:7070\nb http://b:7070 2\n")
    found = [
        open_peers(runtime(text)) for text in (ONE, f"{{file: {file}}}", "{dns: {host: localhost, port: 7071}}", "null")
    ]
    kinds = [None if peers is None else type(peers.membership) for peers in found]
    assert kinds == [StaticMembers, FileMembers, DnsMembers, None]
    assert found[1] is not None
    assert [(member.name, member.weight) for member in found[1].members()] == [("a", 1.0), ("b", 2.0)]


def test_the_token_of_the_environment_goes_before_that_of_the_manifest() -> None:
    workers = runtime(f"{{{ONE[1:-1]}, tokenFile: /declared, tls: {{caFile: /ca}}}}").spec.workers
    assert workers is not None
    given_access = (None, PeerSecurity(), PeerSecurity(token="t"), PeerSecurity(token_file="/environment"))
    found = [security_of(workers, access) for access in given_access]
    assert [(security.token, security.token_file) for security in found] == [
        (None, "/declared"),
        (None, "/declared"),
        ("t", None),
        (None, "/environment"),
    ]
    assert {security.ca_file for security in found} == {"/ca"}


SIZES = st.integers(0, 1 << 50)


@given(SIZES, SIZES, st.integers(0, 100))
def test_auto_keeps_what_is_there_of_a_version_that_does_not_fit(size: int, room: int, workers: int) -> None:
    share = plan_share(dataset(", quota: 1Gi, priority: -3"), version_bytes=size, room_bytes=room, workers=workers)
    portion = -(-size // workers) if workers else size
    assert share.cycle_bytes == (portion if portion > room else 0)
    assert (share.name, share.priority, share.quota_bytes) == ("pets", -3, 1 << 30)


@given(SIZES, SIZES, st.integers(1, 100), st.integers(1, 8))
def test_admission_may_be_chosen(size: int, room: int, workers: int, replicas: int) -> None:
    for admission, keeps in (("keep", True), ("sieve", False)):
        declared = dataset(f", admission: {admission}, replicas: {replicas}")
        share = plan_share(declared, version_bytes=size, room_bytes=room, workers=workers)
        assert share.cycle_bytes == (-(-size * min(replicas, workers) // workers) if keeps else 0)
