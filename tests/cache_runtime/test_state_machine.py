"""The store against a plain model: several processes fill, read, evict, pin and die, and bytes go bad under them.

The model knows what every object's bytes are, who may be evicted, and how much room each share may take. It does not
know what is cached: that is the store's choice, so the claims are about what must never happen.

`FOREBAY_DEEP=1` runs many more and longer histories.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cache_runtime import BlockStore
from cache_runtime.store.ghosts import MissReason
from cache_runtime.store.layout import BLOCK_BYTES, BlockRun, block_span
from cache_runtime.store.shares import Grade, Share
from sources import ObjectRef, StoreId, Version
from tests.cache_runtime.lake import MIB, disk_usage, inconsistencies

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

CAPACITY = 32 * MIB
DEEP = bool(os.environ.get("FOREBAY_DEEP"))
FORK = multiprocessing.get_context("fork")
SIZES = [1, 5000, 60_000, 300_000, MIB, MIB + 1, 5 * MIB, 9 * MIB]
OBJECTS = [ObjectRef(StoreId("test://"), f"k{n}", Version("1"), SIZES[n % len(SIZES)]) for n in range(40)]
SMALL = [ref for ref in OBJECTS if ref.size <= MIB]
LARGE = [ref for ref in OBJECTS if ref.size > MIB]
SHARES = [
    Share(),
    Share("low", priority=-1),
    Share("bounded", quota_bytes=12 * MIB),
    Share("rounds", cycle_bytes=60 * MIB),
    Share("high", priority=1, quota_bytes=16 * MIB),
]
REFS = st.sampled_from(OBJECTS)
ANY_SHARE = st.sampled_from(SHARES)


def content(ref: ObjectRef) -> bytes:
    return (ref.id * (ref.size // 16 + 1))[: ref.size]


def block_of(ref: ObjectRef, block: int) -> tuple[int, bytes]:
    start, length = block_span(BlockRun(block, block), ref.size) if ref.size > MIB else (0, ref.size)
    return start, content(ref)[start : start + length]


def serve(path: Path, calls: Connection) -> None:
    """Do one call after the other in a process of its own."""
    store = BlockStore.open(path, capacity_bytes=CAPACITY)
    while True:
        name, arguments, terms = calls.recv()
        if name == "flood":
            calls.send(None)
            flood(store, *arguments)
        found = getattr(store, name)(*arguments, **terms)
        calls.send(bytes(found) if name == "find" and found is not None else found)


def flood(store: BlockStore, seed: int) -> None:
    """Fill until killed."""
    picks = random.Random(seed)
    while True:
        ref, share = picks.choice(OBJECTS), picks.choice(SHARES)
        if ref.size > MIB:
            block = picks.randrange(-(-ref.size // BLOCK_BYTES))
            store.put(ref, block, block_of(ref, block)[1], share=share, guest=picks.random() < 0.2)
        else:
            some = picks.sample(SMALL, 5)
            store.put_many([(ref, content(ref)) for ref in some], share=share, guest=picks.random() < 0.2)


class Helper:
    """Another process with the same cache directory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._start()

    def _start(self) -> None:
        self._calls, theirs = FORK.Pipe()
        self._process: BaseProcess = FORK.Process(target=serve, args=(self._path, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def call(self, name: str, *arguments: object, **terms: object) -> object:
        self._calls.send((name, arguments, terms))
        assert self._calls.poll(60), f"{name} hangs"
        return self._calls.recv()

    def kill(self) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.join(60)
        self._process.close()
        self._calls.close()

    def restart(self) -> None:
        self._start()


class CacheModel(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="forebay-model-"))
        self.store = BlockStore.open(self.path, capacity_bytes=CAPACITY)
        self.helper: Helper | None = None
        self.pins: defaultdict[str, set[ObjectRef]] = defaultdict(set)
        self.firm: set[ObjectRef] = set()
        self.damaged = False
        self.views: list[tuple[memoryview, bytes]] = []

    def other(self) -> Helper:
        if self.helper is None:
            self.helper = Helper(self.path)
        return self.helper

    def do(self, here: bool, name: str, *arguments: object, **terms: object) -> object:
        """Call a method of the store in this process or in the other one."""
        if here:
            return getattr(self.store, name)(*arguments, **terms)
        return self.other().call(name, *arguments, **terms)

    @rule(ref=REFS, share=ANY_SHARE, guest=st.booleans(), here=st.booleans(), data=st.data())
    def put(self, ref: ObjectRef, share: Share, guest: bool, here: bool, data: st.DataObject) -> None:
        block = data.draw(st.integers(0, (ref.size - 1) // BLOCK_BYTES)) if ref.size > MIB else 0
        start, some = block_of(ref, block)
        stored = self.do(here, "put", ref, block, some, share=share, guest=guest)
        if not stored:
            return
        view = self.store.find(ref, start, len(some))
        if view is not None:
            assert view == some
            self.views = [*self.views[-8:], (view, some)]
        else:
            assert self.damaged or not here, "what was stored is found"

    @rule(refs=st.lists(st.sampled_from(SMALL), max_size=12, unique=True), share=ANY_SHARE, here=st.booleans())
    def put_many(self, refs: list[ObjectRef], share: Share, here: bool) -> None:
        stored = self.do(here, "put_many", [(ref, content(ref)) for ref in refs], share=share)
        assert isinstance(stored, int)
        assert 0 <= stored <= len(refs)

    @rule(share=ANY_SHARE, first=st.integers(0, len(LARGE) - 1), guest=st.booleans(), here=st.booleans())
    def fill_up(self, share: Share, first: int, guest: bool, here: bool) -> None:
        for ref in (LARGE[first:] + LARGE[:first])[:8]:
            self.do(here, "put", ref, 0, block_of(ref, 0)[1], share=share, guest=guest)
            self.keeps_its_quotas()

    @rule(ref=REFS, here=st.booleans(), data=st.data())
    def find(self, ref: ObjectRef, here: bool, data: st.DataObject) -> None:
        offset = data.draw(st.integers(0, ref.size - 1))
        length = data.draw(st.integers(1, ref.size - offset))
        found = self.do(here, "find", ref, offset, length)
        assert found is None or found == content(ref)[offset : offset + length]

    @rule(start=st.integers(0, len(OBJECTS) - 5), here=st.booleans())
    def evict_objects(self, start: int, here: bool) -> None:
        refs = OBJECTS[start : start + 5]
        present = {ref for ref in refs if ref in self.pinned() and self.is_cached(ref)}
        assert self.do(here, "evict", [ref.id for ref in refs]) >= 0  # type: ignore[operator]
        assert {ref for ref in refs if self.is_cached(ref)} == present

    @rule(share=ANY_SHARE, need=st.sampled_from([0, 5 * MIB]), here=st.booleans())
    def evict_some(self, share: Share, need: int, here: bool) -> None:
        if need:
            self.do(here, "evict", need_bytes=need)
        else:
            self.do(here, "evict", share=share.name)

    @rule(refs=st.lists(REFS, max_size=4, unique=True), label=st.sampled_from("xy"), here=st.booleans())
    def pin(self, refs: list[ObjectRef], label: str, here: bool) -> None:
        pinned = self.do(here, "pin", [ref.id for ref in refs], label)
        assert pinned <= sum(map(self.is_cached, refs)) or self.damaged  # type: ignore[operator]
        self.pins[label] |= set(refs)

    @rule(label=st.sampled_from("xy"), here=st.booleans())
    def unpin(self, label: str, here: bool) -> None:
        assert self.do(here, "unpin", label) == len(self.pins.pop(label, ()))

    @rule(pick=st.integers(0, 1 << 16), place=st.floats(0, 1, exclude_max=True))
    def corrupt_a_byte(self, pick: int, place: float) -> None:
        files = sorted(path for top in ("slabs", "files") for path in (self.path / top).rglob("*") if path.is_file())
        if not files:
            return
        path = files[pick % len(files)]
        with path.open("r+b") as file:
            try:
                offset = file.seek(int(path.stat().st_size * place), os.SEEK_DATA)  # a hole has no bytes to go bad
            except OSError:
                return
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 0x10]))
        # what this process has checked, it trusts; and a view would show the byte
        self.views.clear()
        self.restart_here()
        self.damaged = True

    @rule()
    def close(self) -> None:
        self.store.close()

    @rule(seed=st.integers(0, 1000), milliseconds=st.integers(0, 60))
    def kill_the_other_while_it_fills(self, seed: int, milliseconds: int) -> None:
        other = self.other()
        other.call("flood", seed)
        time.sleep(milliseconds / 1000)
        assert disk_usage(self.path) <= CAPACITY
        other.kill()
        self.restart_here()
        assert inconsistencies(self.path) == []
        other.restart()

    @rule(capacity=st.sampled_from([CAPACITY, CAPACITY, 2 * CAPACITY]))
    def reopen(self, capacity: int) -> None:
        before = self.store.status()
        self.store.close()
        self.store = BlockStore.open(self.path, capacity_bytes=capacity)
        self.store.close()
        self.store = BlockStore.open(self.path, capacity_bytes=CAPACITY)
        after = self.store.status()
        assert (after.objects, after.blocks) == (before.objects, before.blocks)
        assert inconsistencies(self.path) == []

    def restart_here(self) -> None:
        """Forget what this process has verified, as a new process would."""
        self.store.close()
        self.store = BlockStore.open(self.path, capacity_bytes=CAPACITY)

    def pinned(self) -> set[ObjectRef]:
        return set().union(*self.pins.values())

    def is_cached(self, ref: ObjectRef) -> bool:
        return not self.store.missing_ids([ref.id])

    @invariant()
    def keeps_its_promises(self) -> None:
        status = self.store.status()
        assert disk_usage(self.path) <= CAPACITY
        assert status.used_bytes <= CAPACITY
        assert status.off_reason is None
        self.keeps_its_quotas()
        assert {(pin.label, pin.objects) for pin in self.store.pins()} == {
            (label, len(refs)) for label, refs in self.pins.items() if refs
        }
        assert self.damaged or self.store.stats.corrupt_blocks == 0
        assert all(view == expected for view, expected in self.views)

    @invariant()
    def keeps_what_is_pinned(self) -> None:
        lost = [ref for ref in self.firm & self.pinned() if not self.is_cached(ref)]
        assert {self.store.why_missing(ref) for ref in lost} <= {MissReason.CORRUPT}
        with self.store._index.reading() as tables:
            entries = {ref: tables.entry(ref.id) for ref in self.pinned()}
            units = {ref: tables.unit(entry.unit) for ref, entry in entries.items() if entry is not None}
        # a small object that found no room in a pinned slab when it was pinned stays where it is
        self.firm = {ref for ref, row in units.items() if row is not None and row.grade == Grade.PINNED}

    def keeps_its_quotas(self) -> None:
        for found in self.store.status().shares:
            quota = found.share.quota_bytes
            assert quota is None or found.used_bytes <= quota

    def teardown(self) -> None:
        if not hasattr(self, "path"):
            return
        if self.helper is not None:
            self.helper.kill()
        self.views.clear()
        for ref in OBJECTS:
            found = self.store.find(ref, 0, ref.size)
            assert found is None or found == content(ref)
        del found
        self.store.close()
        shutil.rmtree(self.path)


TestCacheModel = CacheModel.TestCase
TestCacheModel.settings = settings(
    max_examples=400 if DEEP else 12,
    stateful_step_count=60 if DEEP else 20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
