"""Every store, through every way to open it, on real servers."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import fsspec
import pytest

from sources import open_store
from sources.contract import Place, StoreContract, SwapContract
from tests.conftest import BUCKET

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.weed import S3Server


class TestFileStore(SwapContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return open_store(f"file://{tmp_path}"), f"{tmp_path}/"[1:]


class TestS3Store(SwapContract):
    races = 2  # SeaweedFS lets a writer that finds the key locked wait for a second at a time

    @pytest.fixture
    def place(self, s3: S3Server) -> Place:
        return open_store(f"s3://{BUCKET}/", s3.options), f"contract/{secrets.token_hex(4)}/"


class TestS3ThroughS3fs(StoreContract):
    @pytest.fixture
    def place(self, s3: S3Server) -> Place:
        return open_store(f"fsspec+s3://{BUCKET}/", s3.options), f"contract/{secrets.token_hex(4)}/"


class TestLocalFilesThroughFsspec(StoreContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return open_store("fsspec+file://", {"auto_mkdir": True}), f"{tmp_path}/"[1:]


class TestMemoryThroughFsspec(StoreContract):
    @pytest.fixture
    def place(self) -> Place:
        fsspec.filesystem("memory").store.clear()
        return open_store("memory://"), "contract/"
