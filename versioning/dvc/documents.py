"""The files of a DVC project: `*.dvc`, `dvc.lock`, `dvc.yaml`, `.dvc/config` and directory listings. Pure.

They come from outside: only plain YAML and JSON of limited size is read, and no path leads out of the repository.
"""

from __future__ import annotations

import configparser
import hashlib
import json
import posixpath
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import yaml

from versioning.dvc.errors import DvcFileError
from versioning.dvc.outputs import Output, check_relative, inner_path, output_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MAX_FILE_BYTES = 16 << 20
"""Of a file that git holds; a cloud-versioned directory of 50,000 files has as many."""
MAX_LISTING_BYTES = 1 << 30
"""Of a directory's listing; 10 million files have as many."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_DEPTH = 100
_DIGEST = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What `dvc.lock` leaves to `dvc.yaml`.

    Attributes:
        directories: Directory in the git repository that a stage's paths are relative to, if not that of the file.
        uncached: Paths in the git repository that DVC keeps no copy of.
    """

    directories: Mapping[str, str] = field(default_factory=dict)
    uncached: frozenset[str] = frozenset()


def parse_dvc_file(data: bytes, file: str) -> list[Output]:
    """Return what a `.dvc` file tracks; `file` is its path in the git repository.

    Raises:
        DvcFileError: If it is damaged, or names what lies outside of the repository.
    """
    content = _mapping(load_yaml(data, file), file)
    directory = posixpath.dirname(file)
    wdir = content.get("wdir")
    if wdir is not None:
        directory = _directory(wdir, directory, file=file)
    return _outputs(content.get("outs"), directory, file=file)


def parse_lock(data: bytes, file: str, pipeline: Pipeline) -> list[Output]:
    """Return what the stages of a `dvc.lock` made. Errors as in `parse_dvc_file`."""
    content = _mapping(load_yaml(data, file), file)
    stages = content.get("stages") if "schema" in content else content  # the first DVC with pipelines had no schema
    found: list[Output] = []
    for name, stage in _mapping(stages or {}, file).items():
        directory = pipeline.directories.get(str(name).partition("@")[0], posixpath.dirname(file))
        found += _outputs(_mapping(stage, file).get("outs"), directory, file=file)
    return [replace(output, is_made=True) for output in found if output.path not in pipeline.uncached]


def parse_pipeline(data: bytes, file: str) -> Pipeline:
    """Return what a `dvc.yaml` says about the outputs of its stages. Errors as in `parse_dvc_file`."""
    top = posixpath.dirname(file)
    directories: dict[str, str] = {}
    uncached: set[str] = set()
    for name, stage in _mapping(_mapping(load_yaml(data, file), file).get("stages") or {}, file).items():
        definition = _mapping(stage, file)
        definition = _mapping(definition.get("do", definition), file)
        wdir = definition.get("wdir", ".")
        if isinstance(wdir, str) and "${" in wdir:
            raise DvcFileError(file, reason=f"the wdir of stage {name} is a template, which is not understood")
        directories[str(name)] = _directory(wdir, top, file=file)
        for item in _items(definition):
            if isinstance(item, dict):
                uncached.update(_uncached(item, directories[str(name)], file=file))
    return Pipeline(directories, frozenset(uncached))


def parse_remotes(data: bytes, file: str = ".dvc/config") -> tuple[dict[str, str], str | None]:
    """Return the URLs of a project's remotes by name, and the name of the default one.

    Raises:
        DvcFileError: If the file is damaged.
    """
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(_text(data, file))
    except configparser.Error as error:
        raise DvcFileError(file, reason=f"it is no configuration of DVC ({error!r:.200})") from error
    urls = {}
    for section in parser.sections():
        match = re.fullmatch(r"'?remote \"(?P<name>[^\"]*)\"'?", section)
        if match and parser.has_option(section, "url"):
            urls[match["name"]] = parser.get(section, "url")
    return urls, parser.get("core", "remote", fallback=None)


def parse_listing(data: bytes, file: str, *, digest: str) -> list[tuple[str, str]]:
    """Return path and hash (32 hex digits) of each file of a directory.

    Args:
        data: The `.dir` object.
        file: The directory, for messages.
        digest: What the object's md5 has to be.

    Raises:
        DvcFileError: If it is damaged, or names what lies outside of the directory.
    """
    if hashlib.md5(data, usedforsecurity=False).hexdigest() != digest:
        raise DvcFileError(file, reason="the listing of the directory is not what its hash says; fetch it again")
    try:
        rows = json.loads(data)
        found = [(check_relative(row["relpath"], file=file), row["md5"]) for row in rows]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        if isinstance(error, DvcFileError):
            raise
        raise DvcFileError(file, reason=f"the listing of the directory is damaged ({error!r:.200})") from error
    if not all(isinstance(each, str) and _DIGEST.fullmatch(each) for _, each in found):
        raise DvcFileError(file, reason="the listing of the directory has a hash that is no md5")
    if len({path for path, _ in found}) != len(found):
        raise DvcFileError(file, reason="the listing of the directory has a file twice")
    return found


def listing_bytes(files: Iterable[tuple[str, str]]) -> bytes:
    """Write a directory's listing as DVC does: its md5 is the directory's. Takes path and md5 of each file."""
    rows = [{"md5": digest, "relpath": path} for path, digest in sorted(files)]
    return json.dumps(rows, sort_keys=True).encode()


def load_yaml(data: bytes, file: str) -> Any:
    """Read YAML without tags of Python objects.

    Raises:
        DvcFileError: If it is none, or too large.
    """
    try:
        text = _text(data, file)
        _check_depth(text, file)
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, DvcFileError):
            raise
        raise DvcFileError(file, reason=f"it is no YAML ({error!s:.200})") from error


def _check_depth(text: str, file: str) -> None:
    """Refuse what is nested deeply: libyaml builds it by recursion, and would end the process."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise DvcFileError(file, reason=f"it is nested more than {_MAX_DEPTH} deep")


def _text(data: bytes, file: str) -> str:
    if len(data) > MAX_FILE_BYTES:
        raise DvcFileError(file, reason=f"it has {len(data)} bytes, more than {MAX_FILE_BYTES}")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DvcFileError(file, reason="it is not valid UTF-8") from error


def _mapping(content: Any, file: str) -> Mapping[Any, Any]:
    if not isinstance(content, dict):
        raise DvcFileError(file, reason=f"expected a mapping, found {type(content).__name__}")
    return content


def _outputs(listed: Any, directory: str, *, file: str) -> list[Output]:
    if not isinstance(listed or [], list):
        raise DvcFileError(file, reason="outs is no list")
    found = (output_of(record, directory, file=file) for record in listed or [])
    return [output for output in found if output is not None]


def _directory(wdir: Any, directory: str, *, file: str) -> str:
    if not isinstance(wdir, str):
        raise DvcFileError(file, reason="wdir is no text")
    if posixpath.normpath(posixpath.join(directory, wdir)) == ".":
        return ""
    return inner_path(wdir, directory, file=file)


def _items(definition: Mapping[Any, Any]) -> Sequence[Any]:
    found: list[Any] = []
    for name in ("outs", "metrics", "plots"):
        listed = definition.get(name)
        found += listed if isinstance(listed, list) else []
    return found


def _uncached(item: Mapping[Any, Any], directory: str, *, file: str) -> Iterable[str]:
    for path, settings in item.items():
        if isinstance(settings, dict) and settings.get("cache") is False and isinstance(path, str) and "${" not in path:
            yield inner_path(path, directory, file=file)
