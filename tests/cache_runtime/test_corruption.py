from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cache_runtime import BlockStore, Client
from sources import Location
from tests.cache_runtime.lake import MIB, whole

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cache_runtime.lake import Lake


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[2000] ^= 4
    overwrite(path, bytes(data))


def zero_range(path: Path) -> None:
    overwrite(path, path.read_bytes()[:1000] + bytes(4000) + path.read_bytes()[5000:])


def zero_all(path: Path) -> None:
    overwrite(path, bytes(path.stat().st_size))


def truncate(path: Path) -> None:
    os.truncate(path, 1500)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def remove(path: Path) -> None:
    path.unlink()


def overwrite(path: Path, data: bytes) -> None:
    with path.open("r+b") as file:
        file.write(data)


@pytest.mark.parametrize("damage", [flip_bit, zero_range, zero_all, truncate, empty, remove])
@pytest.mark.parametrize("size", [9000, 6 * MIB])
def test_damage_is_found_on_the_first_read_after_start_and_fetched_anew(
    lake: Lake, cache_path: Path, damage: Callable[[Path], None], size: int
) -> None:
    ref = lake.add("a", size)
    client = Client(lake.origins, BlockStore.open(cache_path, capacity_bytes=64 * MIB))
    client.read(whole(ref))
    client.close()
    damage(next(path for path in cache_path.glob("*/**/*") if path.is_file()))
    client = Client(lake.origins, BlockStore.open(cache_path, capacity_bytes=64 * MIB))
    assert client.read(whole(ref)) == lake.expected(whole(ref))
    stats = client.stats.snapshot()
    assert stats.reads_origin >= 1
    assert stats.corrupt_blocks >= (0 if damage is remove and size == 9000 else 1)
    before = client.stats.snapshot()
    for copy in (client, Client(lake.origins, BlockStore.open(cache_path, capacity_bytes=64 * MIB))):
        assert copy.read(whole(ref)) == lake.expected(whole(ref))
    assert (client.stats.snapshot() - before).reads_origin == 0


def test_only_the_damaged_block_is_fetched_anew(lake: Lake, cache_path: Path) -> None:
    ref = lake.add("a", 12 * MIB)
    Client(lake.origins, BlockStore.open(cache_path, capacity_bytes=64 * MIB)).read(whole(ref))
    path = next(path for path in cache_path.glob("files/*/*"))
    with path.open("r+b") as file:
        file.seek(5 * MIB)
        file.write(b"\0" * 10)
    client = Client(lake.origins, BlockStore.open(cache_path, capacity_bytes=64 * MIB))
    assert client.read(whole(ref)) == lake.expected(whole(ref))
    assert client.stats.snapshot().bytes_origin == 4 * MIB
    assert client.stats.snapshot().corrupt_blocks == 1


def test_intact_bytes_of_another_record_or_block_fail_the_check(lake: Lake, cache_path: Path) -> None:
    small = [lake.write(f"small{n}", bytes([n]) * 5000) for n in range(2)]
    large = lake.write("large", b"a" * 4 * MIB + b"b" * 4 * MIB)
    client = Client(lake.origins, BlockStore.open(cache_path, capacity_bytes=64 * MIB))
    client.read_many([whole(small[0]), whole(small[1]), whole(large)])
    client.close()
    slab = next(cache_path.glob("slabs/*"))
    data = slab.read_bytes()
    overwrite(slab, data[5032:10064] + data[:5032])
    file = next(cache_path.glob("files/*/*"))
    data = file.read_bytes()
    overwrite(file, data[4 * MIB :] + data[: 4 * MIB])
    client = Client(lake.origins, BlockStore.open(cache_path, capacity_bytes=64 * MIB))
    for ref in (*small, large):
        assert client.read(whole(ref)) == lake.expected(whole(ref))
    assert client.stats.snapshot().corrupt_blocks == 4


def test_a_slab_cut_while_it_is_open_is_a_miss(lake: Lake, client: Client, cache_path: Path) -> None:
    ref = lake.add("a", 9000)
    client.read(whole(ref))
    client.read(whole(ref))
    os.truncate(next(cache_path.glob("slabs/*")), 4000)
    assert client.read(Location(ref, 8000, 1000)) == lake.expected(Location(ref, 8000, 1000))
    assert client.stats.snapshot().corrupt_blocks == 1
