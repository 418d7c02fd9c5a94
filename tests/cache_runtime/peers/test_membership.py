from __future__ import annotations

import pickle
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_runtime.errors import MembershipError
from cache_runtime.peers import DnsMembers, FileMembers, Member, Peers, StaticMembers
from cache_runtime.peers.membership import parse_members
from cache_runtime.peers.security import PeerSecurity, TokenSource

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_names_members_one_a_line() -> None:
    members = parse_members("# workers\nb https://b.example:7071 2.5\n\na http://[::1]:7070 # the first\n", "m")
    assert list(members) == [Member("a", "http://[::1]:7070"), Member("b", "https://b.example:7071", 2.5)]


@pytest.mark.parametrize(
    "line",
    ["a", "a http://a:1 heavy", "a http://a:1 1 2", "a ftp://a:1", "a http://", "a http://a:1/x", "a http://a:port",
     "a http://a:1 0", "a http://user:secret@a:1", "a http://a:1\na http://b:1", ""],
)  # fmt: skip
def test_a_malformed_list_is_refused_and_no_password_repeated(line: str) -> None:
    with pytest.raises(MembershipError) as refused:
        parse_members(line + "\n", "the/file")
    assert "secret" not in str(refused.value)


@given(st.text())
def test_any_text_is_members_or_a_membership_error(text: str) -> None:
    with suppress(MembershipError):
        assert len(parse_members(text, "m")) > 0


def test_a_file_is_read_again_when_it_was_replaced_and_bad_ones_are_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "members"
    path.write_text("a http://a:1\n")
    source = FileMembers(path, refresh_seconds=0)
    first = source.members()
    assert source.members() is first
    for bad in ("", "a", "a http://a:1\na http://a:1\n"):
        path.write_text(bad)
        assert source.members() is first
    path.unlink()
    assert source.members() is first
    path.write_text("a http://a:1\nb http://b:1\n")
    assert [member.name for member in source.members()] == ["a", "b"]
    copy: FileMembers = pickle.loads(pickle.dumps(source))
    assert copy.members() == source.members()


def test_a_missing_file_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(MembershipError, match="nowhere"):
        FileMembers(tmp_path / "nowhere")


def test_a_name_in_dns_is_as_many_members_as_it_has_addresses() -> None:
    source = DnsMembers("localhost", 7070)
    found = source.members()
    assert Member("127.0.0.1:7070", "http://127.0.0.1:7070") in list(found)
    copy: DnsMembers = pickle.loads(pickle.dumps(source))
    assert copy.members() == found


def test_dns_that_fails_leaves_the_last_members(monkeypatch: pytest.MonkeyPatch) -> None:
    source = DnsMembers("localhost", 7070, refresh_seconds=0)
    found = source.members()
    assert found

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "by the test")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    for _ in range(3):
        assert source.members() == found
        time.sleep(0.02)


def test_a_name_that_does_not_resolve_is_no_members_and_soon() -> None:
    source = DnsMembers("no-such-host.invalid", 7070)
    begin = time.monotonic()
    assert len(source.members()) == 0
    assert time.monotonic() - begin < 10


def test_new_owners_know_for_a_while_who_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "members"
    path.write_text("a http://a:1\nb http://b:1\n")
    peers = Peers(FileMembers(path, refresh_seconds=0), name="a", serves=True)
    assert len(peers.members()) == 2
    path.write_text("a http://a:1\n")
    assert len(peers.members()) == 1
    assert set(peers._leavers) == {"b"}
    path.write_text("a http://a:1\nb http://b:1\nc http://c:1\n")
    assert len(peers.members()) == 3
    assert peers._leavers == {}
    monkeypatch.setattr("cache_runtime.peers.cluster._LEAVE_SECONDS", 0.05)
    path.write_text("a http://a:1\n")
    assert len(peers.members()) == 1
    assert set(peers._leavers) == {"b", "c"}
    time.sleep(0.06)
    assert len(peers.members()) == 1
    assert peers._leavers == {}


def test_peers_pickle_without_their_connections() -> None:
    peers = Peers(
        StaticMembers([Member("a", "http://a:1")]), name="a", replicas=2, security=PeerSecurity(token="x" * 20)
    )
    copy: Peers = pickle.loads(pickle.dumps(peers))
    assert copy.own_name() == "a"
    assert copy.replicas == 2
    assert copy.security == peers.security
    assert "x" * 20 not in repr(peers.security)


def test_a_token_file_is_read_again_and_kept_while_it_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cache_runtime.peers.security._LOOK_SECONDS", 0.0)
    path = tmp_path / "token"
    path.write_text("first\n")
    source = TokenSource(PeerSecurity(token_file=str(path)))
    assert source.current() == "first"
    path.write_text("the second\n")
    assert source.current() == "the second"
    path.unlink()
    assert source.current() == "the second"
    assert "second" not in repr(source)
