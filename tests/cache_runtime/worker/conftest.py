from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cache_runtime.lake import Lake
from tests.cache_runtime.worker.workers import Worker, worker

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def shared_lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    root = tmp_path_factory.mktemp("shared") / "lake"
    root.mkdir()
    return Lake(root)


@pytest.fixture(scope="module")
def running(shared_lake: Lake) -> Iterator[Worker]:
    """One worker for a module, over its lake; tests add objects of their own."""
    with worker(shared_lake.root, shared_lake.root.parent / "cache") as found:
        yield found
