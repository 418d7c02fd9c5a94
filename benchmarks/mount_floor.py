"""What no mount is faster than: the same objects read from the same S3 server by a client without a mount or a cache.

With as many requests at a time as the program has threads; a stream in ranges of 16 MiB, six at a time. The server has
the same cores: its own work per file, or GiB, is a bound that no client passes.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import obstore
from obstore.store import S3Store

from benchmarks.mount_contestants import BUCKET
from benchmarks.source_data import key_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.services.weed import S3Server

_RANGE_BYTES = 16 << 20
_RANGES = 6


def bucket(server: S3Server) -> S3Store:
    keys: Any = {"access_key_id": server.key, "secret_access_key": server.secret}
    return S3Store(BUCKET, config={**keys, "endpoint": server.endpoint}, client_options={"allow_http": True})


def get_small(server: S3Server, numbers: Sequence[int], threads: int) -> int:
    """Get objects; return how many."""
    store = bucket(server)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda number: obstore.get(store, key_of(number)).bytes(), numbers))
    return len(numbers)


def get_large(server: S3Server, size: int) -> int:
    """Get the large object; return its bytes."""
    store = bucket(server)

    def get(start: int) -> int:
        return len(obstore.get_range(store, "data/big.bin", start=start, length=min(_RANGE_BYTES, size - start)))

    with ThreadPoolExecutor(_RANGES) as pool:
        return sum(pool.map(get, range(0, size, _RANGE_BYTES)))
