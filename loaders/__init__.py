"""From a commit to batches: tar shards, sample order, decoding, and the data set that a training loop reads."""

from __future__ import annotations

from sources.lazy import lazily

TYPE_CHECKING = False
if TYPE_CHECKING:
    from loaders.dataset import Sample, ShardDataset
    from loaders.errors import (
        CorruptSampleError,
        DecodeError,
        DuplicateFieldError,
        KeyRuleError,
        LoaderError,
        MissingExtraError,
        MissingFieldError,
        NoSamplesError,
        PackError,
        SampleError,
        ShardFormatError,
        ShardsExistError,
        StateMismatchError,
        TransformError,
    )
    from loaders.formats import IndexReport, index_shards, open_records
    from loaders.keys import KeyRule
    from loaders.mixture import Mixture
    from loaders.order import Order, OrderMode
    from loaders.ordering.choosing import OrderName
    from loaders.ordering.tails import Tail
    from loaders.packing import PackOptions, PackPlan, PackProgress, PackReport, pack, plan_pack
    from loaders.plain import PlainDataset
    from loaders.planning import Plan, plan
    from loaders.resume import ResumableLoader
    from loaders.running import ErrorPolicy, Headspace, Loader, LoaderStats, SlotDecoder
    from loaders.sampler import ElasticBatchSampler, rank_options
    from loaders.samples import SampleIndex
    from loaders.sharding import ShardLayout
    from loaders.stall import StallMeter, StallReport
    from loaders.writing import ShardWriter
else:
    __getattr__ = lazily(
        __name__,
        {
            "dataset": ("Sample", "ShardDataset"),
            "errors": (
                "CorruptSampleError",
                "DecodeError",
                "DuplicateFieldError",
                "KeyRuleError",
                "LoaderError",
                "MissingExtraError",
                "MissingFieldError",
                "NoSamplesError",
                "PackError",
                "SampleError",
                "ShardFormatError",
                "ShardsExistError",
                "StateMismatchError",
                "TransformError",
            ),
            "formats": ("IndexReport", "index_shards", "open_records"),
            "keys": ("KeyRule",),
            "mixture": ("Mixture",),
            "order": ("Order", "OrderMode"),
            "ordering.choosing": ("OrderName",),
            "ordering.tails": ("Tail",),
            "packing": ("PackOptions", "PackPlan", "PackProgress", "PackReport", "pack", "plan_pack"),
            "plain": ("PlainDataset",),
            "planning": ("Plan", "plan"),
            "resume": ("ResumableLoader",),
            "running": ("ErrorPolicy", "Headspace", "Loader", "LoaderStats", "SlotDecoder"),
            "sampler": ("ElasticBatchSampler", "rank_options"),
            "samples": ("SampleIndex",),
            "sharding": ("ShardLayout",),
            "stall": ("StallMeter", "StallReport"),
            "writing": ("ShardWriter",),
        },
    )

__all__ = [
    "CorruptSampleError",
    "DecodeError",
    "DuplicateFieldError",
    "ElasticBatchSampler",
    "ErrorPolicy",
    "Headspace",
    "IndexReport",
    "KeyRule",
    "KeyRuleError",
    "Loader",
    "LoaderError",
    "LoaderStats",
    "MissingExtraError",
    "MissingFieldError",
    "Mixture",
    "NoSamplesError",
    "Order",
    "OrderMode",
    "OrderName",
    "PackError",
    "PackOptions",
    "PackPlan",
    "PackProgress",
    "PackReport",
    "PlainDataset",
    "Plan",
    "ResumableLoader",
    "Sample",
    "SampleError",
    "SampleIndex",
    "ShardDataset",
    "ShardFormatError",
    "ShardLayout",
    "ShardWriter",
    "ShardsExistError",
    "SlotDecoder",
    "StallMeter",
    "StallReport",
    "StateMismatchError",
    "Tail",
    "TransformError",
    "index_shards",
    "open_records",
    "pack",
    "plan",
    "plan_pack",
    "rank_options",
]
