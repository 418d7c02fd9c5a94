"""From a data set and an order to batches: threads, processes, errors, state and what it costs."""

from loaders.running.collating import Stacking, choose_collate
from loaders.running.headspace import Headspace
from loaders.running.loader import Loader
from loaders.running.options import LoaderOptions, Mode, RunOptions
from loaders.running.policies import BadSample, ErrorPolicy
from loaders.running.quarantine import read_quarantine
from loaders.running.slots import RawArray, SlotDecoder
from loaders.running.statistics import LoaderStats, StageStats

__all__ = [
    "BadSample",
    "ErrorPolicy",
    "Headspace",
    "Loader",
    "LoaderOptions",
    "LoaderStats",
    "Mode",
    "RawArray",
    "RunOptions",
    "SlotDecoder",
    "Stacking",
    "StageStats",
    "choose_collate",
    "read_quarantine",
]
