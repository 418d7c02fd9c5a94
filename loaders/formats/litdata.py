"""Reading LitData: `index.json` and `chunk-*.bin` as `litdata.optimize` writes them, without torch.

| leaf                        | value                                                       |
| --------------------------- | ----------------------------------------------------------- |
| bool, int, float, str, text | the same                                                    |
| numpy, no_header_numpy      | numpy array                                                 |
| tensor, no_header_tensor    | numpy array; bfloat16 stays bytes                           |
| jpeg, image                 | numpy array, as `loaders.decoding` decodes images           |
| pickle                      | refused, unless asked for                                   |
| anything else               | bytes                                                       |
"""

from __future__ import annotations

import json
import os
import pickle
import struct
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from loaders.decoding import decode_image
from loaders.errors import NoSamplesError, ShardFormatError
from loaders.formats.reading import open_shards
from loaders.formats.rows import RowFormat, RowRecords
from loaders.formats.shards import beside
from loaders.formats.unpacking import Unpacked

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from cache_runtime import Client
    from loaders.formats.shards import Finder

_NUMPY = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64")
_NUMPY_OTHERS = ("complex64", "complex128", "bool")
_TORCH = {0: "float32", 1: "float32", 2: "float64", 3: "float64", 4: "complex64", 5: "complex64", 6: "complex128"}
_TORCH |= {7: "complex128", 8: "float16", 9: "float16", 11: "uint8", 12: "int8", 13: "int16", 14: "int16"}
_TORCH |= {15: "int32", 16: "int32", 17: "int64", 18: "int64", 19: "bool", 20: "uint16"}


def open_litdata(place: str, index: Any, finder: Finder, client: Client | None, *, allow_pickle: bool) -> RowRecords:
    """Open the chunks that an `index.json` lists.

    Args:
        place: The directory that holds it.
        index: The document.
        finder: Finds the chunks.
        client: Reads them, if they are not local.
        allow_pickle: Read leaves that are pickled, which runs code that they name.

    Raises:
        ShardFormatError: If the index is damaged, or of a kind that cannot be read here: encrypted, tokens, compressed
            by batches.
        NoSamplesError: If there are no samples.
        SourceNotFoundError: If a chunk is missing.
    """
    where = beside(place, "index.json")
    try:
        config = index["config"]
        listed = [chunk for chunk in index["chunks"] if chunk["chunk_size"]]
        chunks = [(str(chunk["filename"]), int(chunk["chunk_size"])) for chunk in listed]
        sizes = [int(chunk["chunk_bytes"]) for chunk in listed] if config.get("compression") else []
        leaves: list[str] = list(config["data_format"])
        names = _leaf_names(config["data_spec"], len(leaves))
        if any(os.path.isabs(name) or ".." in name.split("/") for name, _ in chunks):
            raise ValueError("a chunk lies elsewhere")
        if any(count < 0 for _, count in chunks):
            raise ValueError("a chunk has less than no samples")
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ShardFormatError(f"{where} is no index of LitData: {error!r}", uri=where) from error
    _check_readable(config, where)
    if config.get("item_loader") not in (None, "PyTreeLoader"):
        raise ShardFormatError(f"{where}: chunks for {config['item_loader']} are not read here", uri=where)
    if not chunks:
        raise NoSamplesError(f"{where} lists no samples")
    decoders = {}
    for name, leaf in zip(names, leaves, strict=True):
        if leaf.partition(":")[0] == "pickle" and not allow_pickle:  # as `_decoder` takes it
            raise ShardFormatError(
                f"{where}: {name!r} holds pickled objects, and reading one runs code; if you trust who wrote it:"
                " allow_pickle=True",
                uri=where,
            )
        try:
            decode = _decoder(leaf)
        except (ValueError, IndexError) as error:
            text = f"{where}: {name!r} is of the unknown kind {leaf[:40]!r}; a later LitData may have written it"
            raise ShardFormatError(text, uri=where) from error
        if decode is not None:
            decoders[name] = decode
    shards = finder.named([beside(place, name) for name, _ in chunks])
    reader = open_shards(shards, finder, client)
    if sizes:
        reader = Unpacked(shards, reader, ["zstd"] * len(shards), sizes)
        shards = [replace(shard, size=size) for shard, size in zip(shards, sizes, strict=True)]
    form = RowFormat(tuple(names), (None,) * len(names), None, decoders)
    return RowRecords(shards, [count for _, count in chunks], reader, form)


def _check_readable(config: Any, where: str) -> None:
    """Refuse chunks that are written in a way that is not known here.

    Of compressions only that of whole chunks by zstd is read, not that of batches or samples within a chunk.
    """
    compression = str(config.get("compression") or "")
    is_whole = config.get("compression_level") in (None, "chunk")
    if (compression and compression.partition(":")[0] != "zstd") or not is_whole:
        text = f"compression {compression[:40]!r} of each {str(config.get('compression_level') or 'chunk')[:40]}"
        text = f"{where}: {text} is not read here; optimize with compression_level='chunk'"
        raise ShardFormatError(text, uri=where)
    if config.get("encryption"):
        text = f"{where}: encryption {str(config['encryption'])[:40]!r} is not read here; optimize without it"
        raise ShardFormatError(text, uri=where)


def _leaf_names(spec: str, count: int) -> list[str]:
    """Name the leaves of a serialised pytree: keys of dicts and numbers of lists, joined by dots.

    Some writers store what is nested as one leaf: then there are as many leaves as the outermost has children.
    """
    tree = json.loads(spec)[1]
    names = [".".join(path) or "0" for path in _leaves(tree, (), deep=True)]
    if len(names) != count:
        names = [".".join(path) or "0" for path in _leaves(tree, (), deep=False)]
    if len(names) != count or len(set(names)) != count:
        raise ValueError(f"{count} leaves, and names for {len(names)}")
    return names


def _leaves(tree: Any, path: tuple[str, ...], *, deep: bool) -> list[tuple[str, ...]]:
    if tree["type"] is None or (path and not deep):
        return [path]
    context = tree["context"]
    keys = json.loads(context) if isinstance(context, str) else context
    if not isinstance(keys, list) or len(keys) != len(tree["children_spec"]):
        keys = range(len(tree["children_spec"]))
    children = zip(keys, tree["children_spec"], strict=True)
    return [leaf for key, child in children for leaf in _leaves(child, (*path, str(key)), deep=deep)]


def _decoder(leaf: str) -> Callable[[memoryview], Any] | None:
    kind, _, detail = leaf.partition(":")
    if kind in ("no_header_numpy", "no_header_tensor"):
        if not detail.isdecimal():
            raise ValueError(f"{detail!r} is no number of a type")
        dtype = (*_NUMPY, *_NUMPY_OTHERS)[int(detail)] if kind == "no_header_numpy" else _TORCH.get(int(detail))
        return None if dtype is None else partial(_flat_array, dtype)
    return _DECODERS.get(kind)


def _boolean(data: memoryview) -> bool:
    return data[0] != 0


def _integer(data: memoryview) -> int:
    value: int = struct.unpack("<q", data)[0]
    return value


def _float(data: memoryview) -> float:
    value: float = struct.unpack("<d", data)[0]
    return value


def _text(data: memoryview) -> str:
    return str(data, "utf-8")


def _flat_array(dtype: str, data: memoryview) -> npt.NDArray[Any]:
    return np.frombuffer(data, dtype)


def _array(data: memoryview) -> npt.NDArray[Any]:
    code, dims = struct.unpack_from("<II", data)
    shape = struct.unpack_from(f"<{dims}I", data, 8)
    return np.frombuffer(data[8 + 4 * dims :], (*_NUMPY, *_NUMPY_OTHERS)[code]).reshape(shape)


def _tensor(data: memoryview) -> npt.NDArray[Any] | bytes:
    code, dims = struct.unpack_from(">II", data)
    shape = struct.unpack_from(f">{dims}I", data, 8)
    if code not in _TORCH:
        return bytes(data)
    return np.frombuffer(data[8 + 4 * dims :], _TORCH[code]).reshape(shape)


_DECODERS: dict[str, Callable[[memoryview], Any]] = {
    "bool": _boolean,
    "float": _float,
    "image": decode_image,
    "int": _integer,
    "jpeg": decode_image,
    "numpy": _array,
    "pickle": pickle.loads,
    "str": _text,
    "tensor": _tensor,
    "text": _text,
}
