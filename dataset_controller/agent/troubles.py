"""What is wrong with a dataset, in words for people: what it is, and what to do; never a secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from dataset_controller.errors import ControllerError, EmptySourceError
from sources import (
    SourceAuthError,
    SourceConfigError,
    SourceError,
    SourceNotFoundError,
    SourceUnavailableError,
    UnsafeSwapError,
)
from versioning import ConflictError, HookRefusedError, LostRaceError, PathClashError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dataset_controller.model import Dataset, Mount
    from dataset_controller.opening import OpenDataset

_CREDENTIAL = re.compile("key|secret|token|pass|credential|auth|sas|account|sign", re.IGNORECASE)
_USER_INFO = re.compile(r"//[^/@\s]+@")
_SHORTEST_SECRET = 4
_MOST_CHARACTERS = 800
_WORDS: tuple[tuple[type[Exception], str, str], ...] = (  # the first that fits
    (SourceAuthError, "AccessDenied", "mend its credentials (secretRef or options); it is tried again by itself"),
    (SourceNotFoundError, "NotFound", "create it, or mend its uri; it is tried again by itself"),
    (SourceConfigError, "BadConfiguration", "mend it; it is tried again by itself"),
    (SourceUnavailableError, "Unreachable", "it is tried again by itself"),
    (UnsafeSwapError, "UnsafeRepository", "keep the repository in another store"),
    (EmptySourceError, "EmptySource", "nothing was deleted; it is tried again by itself"),
    (PathClashError, "PathClash", "nothing was committed"),
    (HookRefusedError, "HookRefused", "mend what the branch's check found, or the check"),
    (ConflictError, "Conflict", "somebody else committed the same paths; it is tried again by itself"),
    (LostRaceError, "Conflict", "others committed at the same time; it is tried again by itself"),
    (SourceError, "SourceFailed", "it is tried again by itself"),
)


class Trouble(NamedTuple):
    """One thing that is wrong.

    Attributes:
        reason: One word in camel case.
        message: For people.
    """

    reason: str
    message: str


def trouble_of(error: Exception) -> Trouble:
    """Return what an error means."""
    for kind, reason, _ in _WORDS:
        if isinstance(error, kind):
            return Trouble(reason, told_reason(error))
    return Trouble(type(error).__name__.removesuffix("Error") or "Failed", told_reason(error))


def told_reason(error: Exception) -> str:
    """Return an error's message, and what is to be done about it."""
    step = next((step for kind, _, step in _WORDS if isinstance(error, kind)), "it is tried again by itself")
    return f"{str(error).strip() or type(error).__name__}; {step}"


def mount_troubles(opened: OpenDataset) -> Trouble | None:
    """Ask every mount for one key, and say which of them fail."""
    found = []
    for mount in opened.resource.spec.mounts:
        try:
            _ask(opened, mount)
        except (SourceError, ControllerError, OSError) as error:
            found.append((mount, error))
    if not found:
        return None
    messages = [f"mount {mount.name!r} ({mount.uri}): {told_reason(error)}" for mount, error in found]
    reasons = {trouble_of(error).reason for _, error in found}
    reason = reasons.pop() if len(reasons) == 1 else "Unreachable"
    return Trouble(reason, redacted("; ".join(messages), opened.resource, opened.secrets))


def _ask(opened: OpenDataset, mount: Mount) -> None:
    from sources import open_store
    from sources.dvc.objects import DVC_OBJECTS

    store = open_store(mount.uri, opened.options_of(mount), limits=mount.store_limits)
    if mount.store == DVC_OBJECTS:
        return  # it is not listed
    for _ in islice(store.list(mount.prefix), 1):
        pass


def redacted(message: str, dataset: Dataset, secrets: Path | None) -> str:
    """Return a message without anything that a secret holds, or an option that looks like a credential."""
    for value in sorted(_credentials(dataset, secrets), key=len, reverse=True):
        message = message.replace(value, "***")
    return _USER_INFO.sub("//***@", message)[:_MOST_CHARACTERS]


def _credentials(dataset: Dataset, secrets: Path | None) -> set[str]:
    values: set[str] = set()
    for place in (*dataset.spec.mounts, dataset.spec.repo):
        values.update(_in_options(place.options))
        if place.secret_ref is not None and secrets is not None:
            values.update(_in_files(secrets / place.secret_ref.name))
    return {value for value in values if len(value) >= _SHORTEST_SECRET}


def _in_options(options: Mapping[str, Any], *, all_of_it: bool = False) -> Iterator[str]:
    for name, value in options.items():
        is_secret = all_of_it or _CREDENTIAL.search(name) is not None
        if isinstance(value, Mapping):
            yield from _in_options(value, all_of_it=is_secret)
        elif is_secret and isinstance(value, str):
            yield value


def _in_files(directory: Path) -> Iterator[str]:
    try:
        files = [file for file in directory.iterdir() if not file.name.startswith(".")]
        for file in files:
            # an endpoint may be told, and is what people look for
            if "endpoint" not in file.name and "url" not in file.name and "region" not in file.name:
                yield file.read_text().strip()
    except (OSError, UnicodeDecodeError):  # what cannot be read was not used either
        return
