"""What the tests of a cluster measured, shown at the end of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.cache_runtime.cluster.roles import Report

LINES: list[str] = []


def note(what: str, reports: Mapping[str, Report], *, origin_bytes: int, pool_bytes: int) -> None:
    """Keep the figures of one test."""
    longest = " ".join(f"{name} {report.longest:.2f}" for name, report in sorted(reports.items()))
    p99 = " ".join(f"{name} {report.p99:.3f}" for name, report in sorted(reports.items()))
    reads = sum(report.reads for report in reports.values())
    LINES.append(
        f"cluster, {what}: {reads} reads; longest call {longest} s; p99 {p99} s; "
        f"origin {origin_bytes / pool_bytes:.3f} of the pool's bytes"
    )
