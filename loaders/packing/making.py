"""Making one shard: fill a tar, name it by its hash, store it."""

from __future__ import annotations

import threading
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from loaders.errors import PackWorkerError
from loaders.packing.buffers import Buffers
from loaders.packing.filling import fill_with_files, fill_with_samples
from loaders.packing.inputs import Inputs
from loaders.packing.sinks import open_sink
from loaders.packing.tasks import ShardResult, check_format
from loaders.packing.transforms import load_transform
from loaders.packing.workplaces import open_workplace

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from loaders.packing.filling import Filled
    from loaders.packing.sinks import ShardSink
    from loaders.packing.tasks import ShardTask
    from loaders.packing.workplaces import OpenedWorkplace
    from versioning import StoredObject

_VERIFY_BYTES = 16 << 20


class ShardMaker:
    """Makes shards in this process. Thread-safe: one is made while another is uploaded.

    Args:
        transform: The function, if it is not to be imported by its name.
        at_once: Shards that are made at a time; None: as many as there are callers.
        spool: Directory of temporary files; the system's own by default.
    """

    def __init__(
        self, transform: Callable[..., Any] | None = None, *, at_once: int | None = 1, spool: Path | None = None
    ) -> None:
        self._transform = transform
        self._making: AbstractContextManager[Any] = threading.Semaphore(at_once) if at_once else nullcontext()
        self._buffers = Buffers(spool)

    def make(self, task: ShardTask) -> ShardResult:
        """Write a shard into the repository; nothing is committed.

        Raises:
            CorruptSampleError, SourceError: If inputs cannot be read, more than may be skipped.
            TransformError: As it says.
            PackWorkerError: If this process cannot do the task.
        """
        check_format(task)
        workplace = open_workplace(task.workplace)
        with ExitStack() as held:
            with self._making:
                filled = self._fill(task, workplace, held)
            pack = filled.pack if len(filled.members) else None
            if pack is not None:
                filled.sink.publish()
                _check_stored(workplace, pack, read_back=task.verify)
        samples, dropped = filled.samples, filled.dropped
        return ShardResult(task.number, pack, filled.members, samples, dropped, tuple(filled.skipped))

    def _fill(self, task: ShardTask, workplace: OpenedWorkplace, held: ExitStack) -> Filled:
        """Fill a shard; its memory is held until the stack is left."""

        def begin(size: int) -> ShardSink:
            sink = open_sink(workplace, size, lambda length: held.enter_context(self._buffers.lend(length)))
            held.callback(sink.close)
            return sink

        inputs = Inputs(workplace, rehash=task.verify)
        if task.transform is None:
            return fill_with_files(task, inputs, begin)
        return fill_with_samples(task, inputs, begin, self._transform or load_transform(task.transform))


def _check_stored(workplace: OpenedWorkplace, pack: StoredObject, *, read_back: bool) -> None:
    """Compare what the store has now with what was written: its size, or all of its bytes.

    Raises:
        PackWorkerError: If it is something else.
    """
    key = workplace.prefix + pack.key
    found = workplace.store.stat(key).size
    if found != pack.size:
        raise PackWorkerError(f"{pack.key}: {pack.size} bytes were written, the store has {found}; pack again")
    if not read_back:
        return
    hasher = blake3()
    for start in range(0, pack.size, _VERIFY_BYTES):
        length = min(_VERIFY_BYTES, pack.size - start)
        hasher.update(workplace.store.read(key, start=start, length=length, version=None))
    if hasher.digest() != pack.oid:
        raise PackWorkerError(
            f"{pack.key}: the bytes that the store gives back hash to {hasher.hexdigest()[:16]}; check the store, then"
            " pack again"
        )
