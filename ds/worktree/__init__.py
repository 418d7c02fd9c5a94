"""Working copies of datasets: finding them, making them, and the dataset that a command works on inside one."""

from ds.worktree.cloning import Cloned, clone, init
from ds.worktree.dataset import WorkingDataset
from ds.worktree.finding import find_root
from ds.worktree.ignoring import IgnoreRules

__all__ = ["Cloned", "IgnoreRules", "WorkingDataset", "clone", "find_root", "init"]
