"""What is to be packed: the files of a commit in the order of a layout, cut into tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from loaders.keys import split_paths
from loaders.packing.reports import PackPlan
from loaders.packing.tasks import LOCATION, TASK_SCHEMA, ShardTask
from loaders.sharding import TAR_BLOCK, plan_shards
from versioning import BLOB_BYTES, ENTRY_SCHEMA

if TYPE_CHECKING:
    from loaders.packing.tasks import TransformRef, Workplace
    from loaders.sharding import ShardLayout, ShardPlan
    from versioning import CommitId, Repository

pc: Any = pyarrow.compute


@dataclass(frozen=True, eq=False)
class Inventory:
    """The files of a commit in writing order.

    Attributes:
        commit: Which.
        entries: Table of `ENTRY_SCHEMA`, in writing order.
        plan: Samples, names and cuts.
        large_files: How many files are left where they are.
    """

    commit: CommitId
    entries: pa.Table
    plan: ShardPlan
    large_files: int

    @classmethod
    def of(cls, repository: Repository, commit: CommitId, layout: ShardLayout, *, whole_samples: bool) -> Inventory:
        """Read a commit's tree.

        Args:
            repository: Has the commit.
            commit: Which.
            layout: Order and size.
            whole_samples: Take large files, too, if they are members of samples: a transform needs all of a sample.

        Raises:
            DuplicateFieldError, KeyRuleError: As `plan_shards`.
        """
        parts = [ENTRY_SCHEMA.empty_table()]
        files = 0
        for table in repository.tree_of(commit).scan():
            wanted = pc.less_equal(table["size"], BLOB_BYTES)
            if whole_samples:
                keys, _ = split_paths(table["path"].combine_chunks(), rule=layout.key)
                wanted = pc.or_(wanted, keys.is_valid())
            parts.append(table.filter(wanted))
            files += len(table)
        entries = pa.concat_tables(parts)
        plan = plan_shards(entries, layout)
        ordered = entries.take(plan.rows).combine_chunks()
        return cls(commit, ordered, plan, files - len(entries))

    def summary(self, stored_shards: int) -> PackPlan:
        """Describe the work."""
        sizes = self.entries["size"].to_numpy()
        in_tar = int((TAR_BLOCK - (-sizes // TAR_BLOCK) * TAR_BLOCK).sum())
        return PackPlan(
            commit=self.commit,
            samples=len(self.plan.begins),
            files=len(self.entries),
            bytes=self.plan.total_bytes,
            shards=len(self.plan.shards),
            tar_bytes=in_tar + 2 * TAR_BLOCK * len(self.plan.shards),
            large_files=self.large_files,
            stored_shards=stored_shards,
        )

    def task(
        self, number: int, workplace: Workplace, transform: TransformRef | None, *, verify: bool, skip_errors: int
    ) -> ShardTask:
        """Return the task for one shard."""
        start, stop = self.plan.shards[number]
        part = self.entries.slice(start, stop - start)
        samples = np.searchsorted(self.plan.begins, np.arange(start, stop), side="right") - 1
        columns = {
            "path": part["path"],
            "name": self.plan.names[start:stop],
            "sample": samples - samples[0],
            "field": self.plan.fields.slice(start, stop - start).cast(pa.string()),
            "sample_key": self.plan.keys.slice(start, stop - start).cast(pa.string()),
            **{name: part[name] for name in LOCATION},
        }
        rows = pa.table(columns, schema=TASK_SCHEMA)
        return ShardTask(number, rows, workplace, transform, verify=verify, skip_errors=skip_errors)

    def bytes_of(self, number: int) -> int:
        """Return the bytes of the files of one shard."""
        start, stop = self.plan.shards[number]
        return int(self.plan.ends[stop - 1]) - (int(self.plan.ends[start - 1]) if start else 0)
