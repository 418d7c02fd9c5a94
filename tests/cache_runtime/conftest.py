from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cache_runtime import BlockStore, Client
from tests.cache_runtime.lake import MIB, Lake

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    root = tmp_path / "lake"
    root.mkdir()
    return Lake(root)


@pytest.fixture
def cache_path(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def store(cache_path: Path) -> BlockStore:
    return BlockStore.open(cache_path, capacity_bytes=256 * MIB)


@pytest.fixture
def client(lake: Lake, store: BlockStore) -> Client:
    return Client(lake.origins, store)
