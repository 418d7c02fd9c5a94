"""The other workers of a cluster: who they are, which of them owns a block, and asking them for it."""

from cache_runtime.peers.cluster import Peers
from cache_runtime.peers.connections import Timeouts
from cache_runtime.peers.membership import DnsMembers, FileMembers, Membership, StaticMembers
from cache_runtime.peers.placement import GROUP_BLOCKS, Member, Members, group_of, rank, rank_many
from cache_runtime.peers.security import PeerSecurity

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
