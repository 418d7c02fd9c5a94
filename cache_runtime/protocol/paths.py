"""The names and limits of the worker's API."""

from __future__ import annotations

from enum import StrEnum

OBJECTS_PATH = "/v1/objects/"
BATCH_PATH = "/v1/batch"
PRESENT_PATH = "/v1/present"
EVICT_PATH = "/v1/evict"
LOAD_PATH = "/v1/load"
LOADS_PATH = "/v1/loads"
STATS_PATH = "/v1/stats"
OPENAPI_PATH = "/v1/openapi.json"
METRICS_PATH = "/metrics"
HEALTH_PATH = "/healthz"
READY_PATH = "/readyz"

SOURCE_HEADER = "Forebay-Source"
BLOCKS_HEADER = "Forebay-Blocks"
REQUEST_HEADER = "Forebay-Request"
"""Id of a request, chosen by its sender, that appears in the logs of all that it leads to."""
BATCH_TYPE = "application/vnd.forebay.batch"

MAX_BATCH_ITEMS = 4096
MAX_BATCH_BYTES = 64 << 20
"""Most bytes of objects in one batch."""
MAX_PRESENT_PIECES = 65_536
MAX_LOAD_PIECES = 200_000
LOAD_ENDED = frozenset({"done", "failed", "cancelled"})
"""States of a load that are its last; before, it is "waiting" or "running"."""
MAX_NAME_BYTES = 2048
"""Longest store, key and version, each, in UTF-8; S3 allows 1024 bytes for a key."""
MAX_OBJECT_BYTES = 1 << 50
MAX_PIECE_BLOCKS = 16
"""Blocks of a request, at most, for each piece that it may have: a few bytes must not ask for a huge answer."""


class Source(StrEnum):
    """Where a worker got the first byte of an answer from: its store, or another worker's or the origin."""

    LOCAL = "local"
    FILLED = "filled"
