"""Working copies of datasets: finding them, making them, and the dataset that a command works on inside one."""

from __future__ import annotations

from sources.lazy import lazily

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ds.worktree.cloning import Cloned, clone, init
    from ds.worktree.dataset import WorkingDataset
    from ds.worktree.finding import find_root
    from ds.worktree.ignoring import IgnoreRules
else:
    __getattr__ = lazily(
        __name__,
        {
            "cloning": ("Cloned", "clone", "init"),
            "dataset": ("WorkingDataset",),
            "finding": ("find_root",),
            "ignoring": ("IgnoreRules",),
        },
    )

__all__ = ["Cloned", "IgnoreRules", "WorkingDataset", "clone", "find_root", "init"]
