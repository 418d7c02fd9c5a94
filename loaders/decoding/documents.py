"""Numbers, text and documents."""

from __future__ import annotations

import json
from typing import Any

from loaders.decoding.optional import optional, required


def decode_json(data: memoryview) -> Any:
    """Decode a JSON document, UTF-8: by orjson where it is installed, and what that refuses (`NaN`) by Python."""
    orjson = optional("orjson")
    if orjson is not None:
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            pass  # what follows accepts it, or says what is wrong
    return json.loads(bytes(data))


def decode_msgpack(data: memoryview) -> Any:
    """Decode a msgpack document; keys of maps may be of any kind.

    Raises:
        MissingExtraError: If msgpack is not installed.
    """
    msgpack = required("msgpack", what="decoding msgpack", package="msgpack", extra="decode")
    return msgpack.unpackb(data, strict_map_key=False)


def decode_class(data: memoryview) -> int:
    """Decode a class number written in decimal, white space around it allowed."""
    return int(bytes(data))


def decode_text(data: memoryview) -> str:
    """Decode UTF-8 text."""
    return str(data, "utf-8")
