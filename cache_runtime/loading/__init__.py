"""Loading ahead: plan what is missing, fetch it with progress, verify that it is there."""

from cache_runtime.loading.distributing import plan_distributed, run_distributed
from cache_runtime.loading.plan import LoadPlan, plan_load
from cache_runtime.loading.progress import LoadFailure, LoadProgress, LoadReport, LoadStop
from cache_runtime.loading.run import run_load

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
