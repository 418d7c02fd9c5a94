"""Keeping a repository whole and small: checking it, collecting garbage, shortening histories."""

from __future__ import annotations

from sources.lazy import lazily

TYPE_CHECKING = False
if TYPE_CHECKING:
    from versioning.maintenance.checking import CheckOptions, CheckReport, check_repository
    from versioning.maintenance.collecting import collect_garbage, list_live
    from versioning.maintenance.expiring import ExpirePolicy, ExpireReport, expire_history, plan_expiry
    from versioning.maintenance.findings import Finding, FindingKind
    from versioning.maintenance.keys import ObjectKind
    from versioning.maintenance.leases import Lease, leased, read_leases
    from versioning.maintenance.operations import Operation
    from versioning.maintenance.policies import GcPolicy, GcReport, Tally
else:
    __getattr__ = lazily(
        __name__,
        {
            "checking": ("CheckOptions", "CheckReport", "check_repository"),
            "collecting": ("collect_garbage", "list_live"),
            "expiring": ("ExpirePolicy", "ExpireReport", "expire_history", "plan_expiry"),
            "findings": ("Finding", "FindingKind"),
            "keys": ("ObjectKind",),
            "leases": ("Lease", "leased", "read_leases"),
            "operations": ("Operation",),
            "policies": ("GcPolicy", "GcReport", "Tally"),
        },
    )

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
    "plan_expiry",
    "read_leases",
]
