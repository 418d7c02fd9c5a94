"""Images for a real kubelet, made by hand: this machine's own directories are mounted into every container."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_LINKS = ("bin", "lib", "lib64", "sbin")
_DIRECTORIES = ("dev", "etc", "proc", "root", "sys", "tmp", "usr", "var")
_PASSWD = b"root:x:0:0:root:/root:/bin/sh\n"


def write_image(path: Path, name: str, config: dict[str, Any], *, files: Sequence[str] = ()) -> None:
    """Write an image of one layer as `docker save` does.

    Args:
        path: The archive.
        name: With its tag.
        config: `Env`, `Entrypoint` and so on.
        files: Of this machine, that are in it; below /usr, where /bin and /lib are links to.
    """
    layer = _layer(files)
    digest = hashlib.sha256(layer).hexdigest()
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{digest}"]}
    about = json.dumps({"architecture": "amd64", "os": "linux", "config": config, "rootfs": rootfs, "history": []})
    config_name = f"{hashlib.sha256(about.encode()).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": [f"{digest}/layer.tar"]}]
    parts = {
        config_name: about.encode(),
        f"{digest}/layer.tar": layer,
        "manifest.json": json.dumps(manifest).encode(),
    }
    with tarfile.open(path, "w") as archive:
        for part, data in parts.items():
            _add(archive, part, data)


def _layer(files: Sequence[str]) -> bytes:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        for name in _DIRECTORIES:
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(directory)
        for name in _LINKS:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
            archive.addfile(link)
        _add(archive, "etc/passwd", _PASSWD)
        for file in files:
            archive.add(os.path.realpath(file), arcname=f"usr/{file.lstrip('/').removeprefix('usr/')}")
    return layer.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))
