from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from cache_runtime import Client
from cache_runtime.errors import MembershipError
from cache_runtime.peers import Member, Peers, PeerSecurity, StaticMembers
from tests.cache_runtime.lake import MIB, whole
from tests.cache_runtime.peers.nodes import FAST
from tests.cache_runtime.worker.workers import worker

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cache_runtime.lake import Lake


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of a server and a client, and of the authority that signed both."""
    work = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=work, check=True, capture_output=True, timeout=60)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", "-days", "2")
    (work / "san").write_text("subjectAltName=IP:127.0.0.1")
    for name in ("server", "client"):
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "san")
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signed)
    return work


def test_bytes_come_over_tls_from_a_worker_that_asks_for_a_certificate(
    lake: Lake, tmp_path: Path, certificates: Path
) -> None:
    refs = [lake.add(f"small{n}", 3000) for n in range(5)] + [lake.add("large", 9 * MIB)]
    tls = [str(certificates / name) for name in ("server.pem", "server.key", "ca.pem")]
    known = PeerSecurity(
        ca_file=str(certificates / "ca.pem"),
        cert_file=str(certificates / "client.pem"),
        key_file=str(certificates / "client.key"),
    )
    with worker(lake.root, tmp_path / "cache", tls=tls) as running:
        members = StaticMembers([Member("w1", running.url)])
        client = Client(lake.origins, None, peers=Peers(members, security=known, timeouts=FAST))
        for _ in range(2):
            views = client.read_many([whole(ref) for ref in refs])
            assert list(views) == [lake.expected(whole(ref)) for ref in refs]
        assert (client.stats.bytes_origin, client.stats.peer_failures) == (0, 0)
        assert sum(len(kept) for kept in client.peers.connections._idle.values()) >= 1 if client.peers else False
        for security in (PeerSecurity(), PeerSecurity(ca_file=known.ca_file)):
            stranger = Client(lake.origins, None, peers=Peers(members, security=security, timeouts=FAST))
            assert stranger.read(whole(refs[0])) == lake.expected(whole(refs[0]))
            assert (stranger.stats.bytes_peer, stranger.stats.peer_failures) == (0, 1)
            stranger.close()
        client.close()


def test_a_certificate_that_cannot_be_read_is_told_at_the_start(tmp_path: Path) -> None:
    security = PeerSecurity(ca_file=str(tmp_path / "nowhere.pem"))
    with pytest.raises(MembershipError, match=r"nowhere\.pem"):
        Peers(StaticMembers([Member("w1", "https://127.0.0.1:1")]), security=security)
