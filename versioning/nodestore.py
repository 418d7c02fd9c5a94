"""Tree nodes in a store, with the ones used last kept decoded in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from sources import SourceNotFoundError
from versioning.chunking import cut_points
from versioning.errors import CorruptRepositoryError
from versioning.nodes import Node, NodeId, decode_node, encode_node, node_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Future
    from types import TracebackType

    import pyarrow as pa

    from sources import RepositoryStore
    from versioning.columns import Mask
    from versioning.node_files import NodeFiles
    from versioning.spec import RepositorySpec

_CACHE_BYTES = 256 << 20
_CONCURRENCY = 16  # requests in flight; an object store answers each in 20-60 ms whatever its size
_STORE_SECONDS = 600  # a store gives up by itself long before; this only ends a wait that nothing else would


class NodeStore:
    """Reads and writes the nodes of a repository. Thread-safe.

    Args:
        store: Holds the repository.
        prefix: The repository's key prefix.
        spec: Its cut rules.
        cache_bytes: Decoded nodes to keep in memory, bytes of Arrow data.
        files: Keeps decoded nodes for later processes of this machine; may be set later, too.
        maps: Whether a node that was decoded is mapped from `files` at once: that takes a moment, and later no memory
            that the kernel could not have back. For processes that stay.

    Attributes:
        reads: Nodes read from the store since it was opened.
        writes: Nodes written to the store since it was opened.
        files: As above. What must see the store itself, such as a check of it, uses a `NodeStore` without.
    """

    def __init__(
        self,
        store: RepositoryStore,
        prefix: str,
        spec: RepositorySpec,
        *,
        cache_bytes: int = _CACHE_BYTES,
        files: NodeFiles | None = None,
        maps: bool = False,
    ) -> None:
        self.spec = spec
        self.files = files
        self.reads = 0
        self.writes = 0
        self._maps = maps
        self._store = store
        self._prefix = prefix
        self._cache_bytes = cache_bytes
        self._cached: OrderedDict[NodeId, Node] = OrderedDict()
        self._held_bytes = 0
        self._lock = threading.Lock()

    def read(self, node_id: NodeId, *, keep: bool = True) -> Node:
        """Return a node, verified against its id.

        Args:
            node_id: Which.
            keep: Whether it stays in memory for whoever asks next.

        Raises:
            CorruptRepositoryError: If it is missing or damaged.
        """
        with self._lock:
            node = self._cached.get(node_id)
            if node is not None:
                self._cached.move_to_end(node_id)
                return node
        if self.files is not None and (node := self.files.get(node_id, in_parts=self._maps)) is not None:
            if keep:
                self._keep(node)
            return node
        key = self._key(node_id)
        try:
            data, _ = self._store.fetch(key)
        except SourceNotFoundError as error:
            raise CorruptRepositoryError(key, reason="a commit needs it and it is missing") from error
        node = decode_node(data, node_id, key=key)
        with self._lock:
            self.reads += 1
        if self.files is not None:
            self.files.put(node)
            if self._maps:
                node = self.files.get(node_id, in_parts=True) or node  # a full disk keeps none
        if keep:
            self._keep(node)
        return node

    def read_all(self, node_ids: Iterable[NodeId], *, keep: bool = True) -> Iterator[Node]:
        """Yield nodes in the order asked for, reading some ahead; `keep` as in `read`."""
        pending: deque[Future[Node]] = deque()
        ids = list(node_ids)
        if len(ids) == 1:
            yield self.read(ids[0], keep=keep)
            return
        with ThreadPoolExecutor(_CONCURRENCY, "forebay-nodes") as pool:
            try:
                for node_id in ids:
                    pending.append(pool.submit(self.read, node_id, keep=keep))
                    if len(pending) >= _CONCURRENCY:
                        yield pending.popleft().result(_STORE_SECONDS)
                while pending:
                    yield pending.popleft().result(_STORE_SECONDS)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def write(self, node: Node) -> None:
        """Write a node durably; one that is there already is written again, with the same content."""
        self._store.put(self._key(node.id), encode_node(node))
        with self._lock:
            self.writes += 1
        self._keep(node)
        if self.files is not None:
            self.files.put(node)

    def _key(self, node_id: NodeId) -> str:
        name = node_id.hex()
        return f"{self._prefix}trees/{name[:2]}/{name}.parquet"

    def _keep(self, node: Node) -> None:
        with self._lock:
            if node.id in self._cached:
                return
            self._cached[node.id] = node
            self._held_bytes += node.table.nbytes
            while self._held_bytes > self._cache_bytes and len(self._cached) > 1:
                _, dropped = self._cached.popitem(last=False)
                self._held_bytes -= dropped.table.nbytes


class NodeWriter:
    """Cuts runs of rows into nodes and writes those, several at a time; on leaving the context all are durable."""

    def __init__(self, nodes: NodeStore) -> None:
        self._nodes = nodes
        self._pool = ThreadPoolExecutor(_CONCURRENCY, "forebay-nodes")
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> NodeWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while self._pending and error is None:
                self._pending.popleft().result(_STORE_SECONDS)
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def complete(self, rows: pa.Table, level: int, *, silent: Mask | None = None) -> tuple[list[Node], pa.Table]:
        """Return the nodes that a run of rows completes, unwritten, and the rows left over; `silent`: `cut_points`."""
        start = 0
        done: list[Node] = []
        rule = self._nodes.spec.rule(level)
        for end in cut_points(rows.column("path"), level=level, rule=rule, silent=silent):
            done.append(node_of(rows.slice(start, end - start), level))
            start = end
        return done, rows.slice(start)

    def write(self, node: Node) -> None:
        """Begin to write a node; blocks while too many are under way."""
        self._pending.append(self._pool.submit(self._nodes.write, node))
        while len(self._pending) > 2 * _CONCURRENCY:
            self._pending.popleft().result(_STORE_SECONDS)
