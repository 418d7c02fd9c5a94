"""From a commit to batches: tar shards, sample order, decoding, and the data set that a training loop reads."""

from loaders.dataset import Sample, ShardDataset
from loaders.errors import (
    CorruptSampleError,
    DecodeError,
    DuplicateFieldError,
    LoaderError,
    MissingExtraError,
    MissingFieldError,
    NoSamplesError,
    SampleError,
    StateMismatchError,
)
from loaders.grouping import KeyRule
from loaders.order import Order, OrderMode
from loaders.packing import PackProgress, pack
from loaders.resume import ResumableLoader
from loaders.sampler import ElasticBatchSampler
from loaders.samples import SampleIndex
from loaders.sharding import ShardLayout
from loaders.stall import StallMeter, StallReport

__all__ = [
    "CorruptSampleError",
    "DecodeError",
    "DuplicateFieldError",
    "ElasticBatchSampler",
    "KeyRule",
    "LoaderError",
    "MissingExtraError",
    "MissingFieldError",
    "NoSamplesError",
    "Order",
    "OrderMode",
    "PackProgress",
    "ResumableLoader",
    "Sample",
    "SampleError",
    "SampleIndex",
    "ShardDataset",
    "ShardLayout",
    "StallMeter",
    "StallReport",
    "StateMismatchError",
    "pack",
]
