"""Loose files as samples: a directory on this machine or in a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from loaders.errors import NoSamplesError
from loaders.formats.reading import client_of
from loaders.formats.shards import beside
from loaders.grouping import COLUMNS, group_members
from loaders.objects import ObjectTable
from loaders.records import CommitRecords
from loaders.samples import SampleIndex
from sources import StoreId
from versioning import RepositoryRoot

if TYPE_CHECKING:
    from cache_runtime import Client
    from loaders.formats.shards import Finder
    from loaders.keys import KeyRule


def open_files(places: list[str], finder: Finder, client: Client | None, key: KeyRule) -> CommitRecords:
    """Open loose files: their paths below the directory are what keys are made of.

    Raises:
        NoSamplesError: If there are none, or more than one place.
        DuplicateFieldError: If two files are one field of one sample.
        SourceError: If the directory cannot be listed.
    """
    if len(places) != 1:
        raise NoSamplesError(f"{', '.join(places[:3])}: name one directory for loose files")
    (place,) = places
    found = finder.directory(place)
    above = len(beside(place, "x")) - 1
    refs = [one.ref for one in found]
    columns: dict[str, list[Any]] = {
        "path": [one.uri[above:] for one in found],
        "size": [one.size for one in found],
        "crc32c": [None] * len(found),
        "store": [ref.store for ref in refs],
        "key": [ref.key for ref in refs],
        "version": [ref.version for ref in refs],
        "object_size": [one.size for one in found],
        "offset": [0] * len(found),
    }
    grouped = group_members([pa.table({name: columns[name] for name in COLUMNS})], rule=key)
    samples = SampleIndex(
        keys=grouped.keys,
        starts=grouped.starts,
        member_object=grouped.member_object,
        member_offset=grouped.members["offset"].to_numpy(),
        member_length=grouped.members["size"].to_numpy(),
        member_field=grouped.member_field,
        member_crc=grouped.members["crc32c"].to_numpy(),
        fields=grouped.fields,
        objects=ObjectTable(grouped.objects, RepositoryRoot(StoreId("file://"), "")),  # no row lies in a repository
        skipped=grouped.skipped,
    )
    if not len(samples):
        raise NoSamplesError(
            f"{place}: no tars, no Parquet, no index.json, and no file with a name of the form KEY.FIELD"
        )
    return CommitRecords(samples, client or client_of(finder))
