"""Keeping a repository whole and small: checking it, collecting garbage, shortening histories."""

from versioning.maintenance.checking import CheckOptions, CheckReport, check_repository
from versioning.maintenance.collecting import collect_garbage, list_live
from versioning.maintenance.expiring import ExpirePolicy, ExpireReport, expire_history, plan_expiry
from versioning.maintenance.findings import Finding, FindingKind
from versioning.maintenance.keys import ObjectKind
from versioning.maintenance.leases import Lease, leased, read_leases
from versioning.maintenance.operations import Operation, operations
from versioning.maintenance.policies import GcPolicy, GcReport, Tally

__all__ = [
    "CheckOptions",
    "CheckReport",
    "ExpirePolicy",
    "ExpireReport",
    "Finding",
    "FindingKind",
    "GcPolicy",
    "GcReport",
    "Lease",
    "ObjectKind",
    "Operation",
    "Tally",
    "check_repository",
    "collect_garbage",
    "expire_history",
    "leased",
    "list_live",
    "operations",
    "plan_expiry",
    "read_leases",
]
