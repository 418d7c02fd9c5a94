"""From a declared cluster to its workers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cache_runtime.peers import DnsMembers, FileMembers, Peers, PeerSecurity, StaticMembers

if TYPE_CHECKING:
    from cache_runtime.peers import Membership
    from dataset_controller.runtime_model import CacheRuntime, Workers


def open_peers(
    runtime: CacheRuntime,
    access: PeerSecurity | None = None,
    *,
    directory: str | None = None,
    replicas: int = 1,
    serves: bool = False,
) -> Peers | None:
    """Return the workers of a cache runtime; None if it names none. None of them is asked anything.

    Args:
        runtime: As declared.
        access: Token that the environment gives; goes before the file that the manifest names.
        directory: The first of this node's cache directories that can be used; in it a worker says that it runs.
        replicas: How many workers keep each block.
        serves: Whether it is for a worker of the cluster itself.

    Raises:
        MembershipError: If the file that names them cannot be used.
    """
    workers = runtime.spec.workers
    if workers is None:
        return None
    return Peers(
        open_membership(workers),
        directory=directory or runtime.spec.tiers[0].path,
        serves=serves,
        replicas=replicas,
        security=security_of(workers, access),
    )


def open_membership(workers: Workers) -> Membership:
    """Return who the workers are. Errors as in `open_peers`."""
    if workers.file is not None:
        return FileMembers(workers.file)
    if workers.dns is not None:
        return DnsMembers(workers.dns.host, workers.dns.port, scheme=workers.dns.scheme)
    return StaticMembers(each.member for each in workers.members)


def security_of(workers: Workers, access: PeerSecurity | None) -> PeerSecurity:
    """Return what to show to workers: the token of the environment, else the manifest's, and the certificates."""
    security = access or PeerSecurity()
    if security.token is None and security.token_file is None:
        security = replace(security, token_file=workers.token_file)
    if workers.tls is None:
        return security
    tls = workers.tls
    return replace(security, ca_file=tls.ca_file, cert_file=tls.cert_file, key_file=tls.key_file)
