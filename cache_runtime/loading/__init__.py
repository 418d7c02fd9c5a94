"""Loading ahead: plan what is missing, fetch it with progress, verify that it is there."""

from __future__ import annotations

from sources.lazy import lazily

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cache_runtime.loading.distributing import plan_distributed, run_distributed
    from cache_runtime.loading.plan import LoadPlan, plan_load
    from cache_runtime.loading.progress import LoadFailure, LoadProgress, LoadReport, LoadStop
    from cache_runtime.loading.run import run_load
else:
    __getattr__ = lazily(
        __name__,
        {
            "distributing": ("plan_distributed", "run_distributed"),
            "plan": ("LoadPlan", "plan_load"),
            "progress": ("LoadFailure", "LoadProgress", "LoadReport", "LoadStop"),
            "run": ("run_load",),
        },
    )

__all__ = [
    "LoadFailure",
    "LoadPlan",
    "LoadProgress",
    "LoadReport",
    "LoadStop",
    "plan_distributed",
    "plan_load",
    "run_distributed",
    "run_load",
]
