"""Commits: one version each, as canonical JSON whose hash is its id."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import OrderedDict
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, NewType

from blake3 import blake3

from sources import SourceNotFoundError
from versioning.errors import CorruptRepositoryError, ExpiredCommitError, InvalidNameError
from versioning.shallow import read_shallow
from versioning.trees import TreeId

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sources import RepositoryStore

CommitId = NewType("CommitId", str)
"""64 hex digits: BLAKE3-256 of a domain tag and the commit's canonical JSON."""

_TAG = b"forebay.commit.v1\n"
_FORMAT = 1
_ID = re.compile(r"[0-9a-f]{64}")
_HIDDEN_SECONDS = 300.0  # what expires meanwhile is not deleted so soon
_CACHED_COMMITS = 4096  # about a kilobyte each


@dataclass(frozen=True, slots=True)
class CommitStats:
    """Counts of a commit.

    Attributes:
        files: Paths in the tree.
        bytes: Their bytes.
        added: Paths that the first parent does not have; `modified`, `deleted` and `layout` are against it too.
    """

    files: int
    bytes: int
    added: int
    modified: int
    deleted: int
    layout: int


@dataclass(frozen=True, slots=True)
class HookResult:
    """What a hook said of a commit before it was made.

    Attributes:
        id: The hook's name in `.ds/hooks.yaml` of the first parent.
        result: "passed", or "skipped" by whoever committed.
    """

    id: str
    result: str


@dataclass(frozen=True, slots=True)
class Commit:
    """One version of a dataset.

    Attributes:
        tree: Id of its tree.
        parents: Empty for a first commit; a merge has the branch's commit first.
        author: Who made the change, free text ("Ada <ada@example.org>").
        committer: Who put it on the branch.
        authored_at: UTC, RFC 3339 with milliseconds; `committed_at` too.
        message: Free text.
        stats: Counts against the first parent.
        generation: 1 for a first commit, else one more than the highest of its parents.
        meta: Free JSON, such as labels of the version.
        lineage: What it was made from: inputs, code, parameters; free JSON.
        hooks: The hooks that it was checked by.
        signature: An SSH signature of `signed_bytes`; empty without.
    """

    tree: TreeId
    parents: tuple[CommitId, ...]
    author: str
    committer: str
    authored_at: str
    committed_at: str
    message: str
    stats: CommitStats
    generation: int
    meta: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    hooks: tuple[HookResult, ...] = ()
    signature: str = ""


_OPTIONAL = ("hooks", "signature")  # not written when empty: older commits have none of them


def encode_commit(commit: Commit) -> bytes:
    """Write canonical JSON: sorted keys, no spaces, UTF-8.

    Raises:
        InvalidNameError: If a text is not valid Unicode, or meta or lineage is no JSON.
    """
    fields = asdict(commit).items()
    content = {"format": _FORMAT, **{name: value for name, value in fields if value or name not in _OPTIONAL}}
    try:
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidNameError(commit.message, what="commit", reason=str(error)) from error


def signed_bytes(commit: Commit) -> bytes:
    """Return what a commit's signature signs: its canonical JSON without it. Errors as in `encode_commit`."""
    return encode_commit(replace(commit, signature=""))


def commit_id(data: bytes) -> CommitId:
    """Hash a commit's canonical JSON."""
    return CommitId(blake3(_TAG + data).hexdigest())


def decode_commit(data: bytes, expected: CommitId, *, key: str) -> Commit:
    """Read a commit and check that it is the expected one.

    Raises:
        CorruptRepositoryError: If it is another one, or none that this version can read.
    """
    if commit_id(data) != expected:
        raise CorruptRepositoryError(key, reason="its content does not match its id")
    try:
        return _decode_fields(json.loads(data))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptRepositoryError(key, reason=f"it is no commit that this version can read ({error!r})") from error


def format_time(moment: datetime) -> str:
    """Write an aware UTC time as RFC 3339 with milliseconds."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class CommitStore:
    """Reads and writes a repository's commits. Thread-safe; commits read last stay in memory."""

    def __init__(self, store: RepositoryStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        self._cached: OrderedDict[CommitId, Commit] = OrderedDict()
        self._lock = threading.Lock()
        self._hidden: frozenset[str] | None = None
        self._hidden_until = 0.0

    def read(self, identity: CommitId) -> Commit:
        """Return a commit, verified against its id, without the parents that `expire` has hidden.

        What is hidden is read with the first commit that has parents, and then once in a while; `forget_hidden` reads
        it again at once.

        Raises:
            CorruptRepositoryError: If it is missing or damaged.
        """
        commit = self.read_whole(identity)
        if not commit.parents or self.hidden().isdisjoint(commit.parents):
            return commit
        return replace(commit, parents=tuple(parent for parent in commit.parents if parent not in self.hidden()))

    def hidden(self) -> frozenset[str]:
        """Return the commits that no walk through the history goes to."""
        if self._hidden is None or time.monotonic() > self._hidden_until:
            self._hidden = read_shallow(self._store, self._prefix).hidden
            self._hidden_until = time.monotonic() + _HIDDEN_SECONDS
        return self._hidden

    def require_shown(self, identity: CommitId) -> None:
        """Make sure that a commit was not cut off.

        Raises:
            ExpiredCommitError: If it was.
        """
        if identity in self.hidden():
            raise ExpiredCommitError(identity)

    def forget_hidden(self) -> None:
        """Ask the store again which commits are hidden when that is needed next."""
        self._hidden = None

    def read_whole(self, identity: CommitId) -> Commit:
        """Return a commit as it was written, verified against its id.

        Raises:
            CorruptRepositoryError: If it is missing or damaged.
        """
        with self._lock:
            if identity in self._cached:
                self._cached.move_to_end(identity)
                return self._cached[identity]
        key = self._key(identity)
        try:
            data, _ = self._store.fetch(key)
        except SourceNotFoundError as error:
            raise CorruptRepositoryError(key, reason="a ref or commit needs it and it is missing") from error
        commit = decode_commit(data, identity, key=key)
        self._keep(identity, commit)
        return commit

    def write(self, commit: Commit) -> CommitId:
        """Write a commit durably and return its id."""
        data = encode_commit(commit)
        identity = commit_id(data)
        self._store.put(self._key(identity), data)
        self._keep(identity, commit)
        return identity

    def exists(self, identity: CommitId) -> bool:
        """Say whether there is such a commit."""
        if identity in self._cached:
            return True
        try:
            self._store.stat(self._key(identity))
        except SourceNotFoundError:
            return False
        return True

    def find(self, start: str) -> list[CommitId]:
        """List the commits whose ids start with at least two hex digits."""
        keys = self._prefix + f"commits/{start[:2]}/{start}"
        try:
            names = [stat.key.rpartition("/")[2].removesuffix(".json") for stat in self._store.list(keys)]
        except SourceNotFoundError:  # a directory store has no commits/<aa>/ yet
            return []
        return sorted(CommitId(name) for name in names if _ID.fullmatch(name))

    def _key(self, identity: CommitId) -> str:
        return f"{self._prefix}commits/{identity[:2]}/{identity}.json"

    def _keep(self, identity: CommitId, commit: Commit) -> None:
        with self._lock:
            self._cached[identity] = commit
            if len(self._cached) > _CACHED_COMMITS:
                self._cached.popitem(last=False)


def check_commit_id(text: str) -> CommitId:
    """Check that a text is a full commit id.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(text, str) or not _ID.fullmatch(text):
        raise ValueError(f"{text!r} is no commit id")
    return CommitId(text)


def _decode_fields(content: Mapping[str, Any]) -> Commit:
    if content["format"] != _FORMAT:
        raise ValueError(f"format {content['format']!r}; upgrade forebay")
    texts = {name: content[name] for name in ("author", "committer", "authored_at", "committed_at", "message")}
    maps = {name: content[name] for name in ("meta", "lineage")}
    if not all(isinstance(value, str) for value in texts.values()):
        raise TypeError("a text field is no text")
    if not all(isinstance(value, dict) for value in maps.values()) or type(content["generation"]) is not int:
        raise TypeError("meta, lineage or generation has a wrong type")
    return Commit(
        tree=TreeId(check_commit_id(content["tree"])),
        parents=tuple(check_commit_id(parent) for parent in content["parents"]),
        stats=CommitStats(**{name: int(count) for name, count in content["stats"].items()}),
        generation=content["generation"],
        hooks=tuple(_decode_hook(each) for each in content.get("hooks", ())),
        signature=_text(content.get("signature", "")),
        **texts,
        **maps,
    )


def _decode_hook(content: Mapping[str, Any]) -> HookResult:
    return HookResult(_text(content["id"]), _text(content["result"]))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text field is no text")
    return value
