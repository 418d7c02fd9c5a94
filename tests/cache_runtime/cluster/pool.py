"""The data of a cluster test: objects in a real S3 bucket, with the bytes that each of them must have in files."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sources import Location, ObjectRef, Origins, open_store
from tests.cache_runtime.lake import MIB

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.weed import S3Server

BUCKET = "cluster"
_SAMPLE_BYTES = MIB


@dataclass(frozen=True)
class Pool:
    """Objects below one prefix of a bucket.

    Attributes:
        directory: Of the files with their bytes.
        options: Of the store.
        refs: The objects.
    """

    directory: Path
    options: dict[str, object]
    refs: tuple[ObjectRef, ...]

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return sum(ref.size for ref in self.refs)

    def origins(self) -> Origins:
        """Return what reads them."""
        return open_origins(self.options)

    def samples(self) -> list[Location]:
        """Return what an epoch reads: small objects whole, large ones in samples of 1 MiB."""
        return [
            Location(ref, start, min(_SAMPLE_BYTES, ref.size - start))
            for ref in self.refs
            for start in range(0, ref.size, _SAMPLE_BYTES)
        ]

    def part(self, location: Location) -> bytes:
        """Return the bytes that a location must have."""
        with open(self.directory / os.path.basename(location.object.key), "rb") as file:
            return os.pread(file.fileno(), location.length, location.offset)


def open_origins(options: dict[str, object]) -> Origins:
    """Return the bucket as the only origin."""
    origins = Origins()
    origins.add("", open_store(f"s3://{BUCKET}/", options))
    return origins


def upload(server: S3Server, directory: Path, *, small: int, large: int) -> Pool:
    """Make objects of 1 byte to 60 KiB, and of 1 to 9 MiB, and put them into the bucket."""
    directory.mkdir()
    store = open_store(f"s3://{BUCKET}/", server.options)
    sizes = {f"small{n}": 1 + n * 60 * 1024 // small for n in range(small)}
    sizes |= {f"large{n}": MIB + 1 + n * 8 * MIB // large for n in range(large)}

    def put(name: str) -> ObjectRef:
        data = random.Random(f"{directory.name}/{name}").randbytes(sizes[name])
        (directory / name).write_bytes(data)
        key = f"{directory.name}/{name}"
        store.put(key, data)
        found = store.stat(key)
        return ObjectRef(store.id, key, found.version, found.size)

    with ThreadPoolExecutor(8) as threads:
        return Pool(directory, server.options, tuple(threads.map(put, sizes)))
