"""Rewriting where a commit's bytes lie: many small files become tar shards in training order, by many workers."""

from loaders.packing.reports import PackPlan, PackProgress, PackReport, Skipped
from loaders.packing.running import PackOptions, pack, plan_pack
from loaders.packing.tasks import Workplace
from loaders.packing.workplaces import OpenedWorkplace

__all__ = [
    "OpenedWorkplace",
    "PackOptions",
    "PackPlan",
    "PackProgress",
    "PackReport",
    "Skipped",
    "Workplace",
    "pack",
    "plan_pack",
]
