"""The other workers of a cluster: who they are, which of them owns a block, and asking them for it."""

from __future__ import annotations

from sources.lazy import lazily

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cache_runtime.peers.cluster import Peers
    from cache_runtime.peers.connections import Timeouts
    from cache_runtime.peers.membership import DnsMembers, FileMembers, Membership, StaticMembers
    from cache_runtime.peers.placement import GROUP_BLOCKS, Member, Members, group_of, rank, rank_many
    from cache_runtime.peers.security import PeerSecurity
else:
    __getattr__ = lazily(
        __name__,
        {
            "cluster": ("Peers",),
            "connections": ("Timeouts",),
            "membership": ("DnsMembers", "FileMembers", "Membership", "StaticMembers"),
            "placement": ("GROUP_BLOCKS", "Member", "Members", "group_of", "rank", "rank_many"),
            "security": ("PeerSecurity",),
        },
    )

__all__ = [
    "GROUP_BLOCKS",
    "DnsMembers",
    "FileMembers",
    "Member",
    "Members",
    "Membership",
    "PeerSecurity",
    "Peers",
    "StaticMembers",
    "Timeouts",
    "group_of",
    "rank",
    "rank_many",
]
