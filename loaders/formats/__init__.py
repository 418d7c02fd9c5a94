"""Samples outside of a repository: tar shards with or without index, MDS, LitData, Parquet, loose files."""

from loaders.formats.index_writing import IndexReport, index_shards
from loaders.formats.opening import open_records

__all__ = ["IndexReport", "index_shards", "open_records"]
