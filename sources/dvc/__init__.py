"""Data that DVC tracks, read through DVC's own filesystem: `dvc://`."""

from sources.dvc.store import DvcStore

__all__ = ["DvcStore"]
