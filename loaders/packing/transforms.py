"""The user's function between reading a sample and writing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from loaders.code import find_callable, importable_name, name_of, version_of
from loaders.errors import TransformError
from loaders.packing.tasks import TransformRef

if TYPE_CHECKING:
    from collections.abc import Callable


class Member(NamedTuple):
    """A file that comes out of a sample.

    Attributes:
        row: Of the sample's rows, from 0: the file whose time and labels it has.
        path: Its path, if it is none that went in.
        field: Its field.
        data: Its bytes.
    """

    row: int
    path: str | None
    field: str
    data: bytes


def transform_ref(function: Callable[..., Any] | str, version: str = "") -> TransformRef:
    """Name a function for commits, journals and workers.

    Args:
        function: It, or `module:function`.
        version: The user's own words for the version of the code.
    """
    made = find_callable(function) if isinstance(function, str) else function
    return TransformRef(function if isinstance(function, str) else name_of(made), version_of(made), version)


def load_transform(ref: TransformRef) -> Callable[..., Any]:
    """Find a function, and see that it is the same code.

    Raises:
        CodeError: If it cannot be imported here.
        TransformError: If it is another version of the code.
    """
    function = find_callable(ref.name)
    if version_of(function) != ref.code:
        raise TransformError(
            f"{ref.name} is other code here ({version_of(function) or 'unknown'}) than where the pack was begun"
            f" ({ref.code}); install the same version for all workers"
        )
    return function


def require_importable(function: Callable[..., Any]) -> None:
    """See that other processes can import a function.

    Raises:
        TransformError: If they cannot.
    """
    if importable_name(function) is None:
        raise TransformError(
            f"other processes cannot import {name_of(function)}: put it into a module, no function of a script, no"
            " lambda, or pack with one worker"
        )


def run_transform(
    function: Callable[..., Any], key: str, fields: list[str], data: list[bytes]
) -> list[tuple[str, bytes]] | None:
    """Send one sample through a function; return its fields, sorted, or None if it is dropped.

    Raises:
        TransformError: If the function raises, or returns something else than fields with bytes.
    """
    sample: dict[str, Any] = {"__key__": key, **dict(zip(fields, data, strict=True))}
    try:
        made = function(sample)
    except Exception as error:  # it is anybody's
        raise TransformError(
            f"{name_of(function)} failed with sample {key}: {type(error).__name__}: {error}; let it return None for"
            " what it cannot use",
            key=key,
        ) from error
    return None if made is None else _checked(name_of(function), key, made)


def _checked(name: str, key: str, made: Any) -> list[tuple[str, bytes]]:
    if not isinstance(made, dict):
        raise TransformError(
            f"{name} returned a {type(made).__name__} for sample {key}; expected a dict of field to bytes, or None",
            key=key,
        )
    if made.get("__key__", key) != key:
        raise TransformError(f"{name} renamed sample {key} to {made['__key__']!r}; keys stay as they are", key=key)
    fields = sorted(field for field in made if field != "__key__")
    for field in fields:
        if not isinstance(made[field], (bytes, bytearray, memoryview)):
            raise TransformError(
                f"{name}: field {field!r} of sample {key} is a {type(made[field]).__name__}; encode it to bytes",
                key=key,
            )
        if not field or "/" in field or field != field.lower():
            raise TransformError(
                f"{name}: {field!r} of sample {key} is no field name; they are lower case, without slashes", key=key
            )
    return [(field, bytes(made[field])) for field in fields]


def place_members(made: list[tuple[str, bytes]], fields: list[str], paths: list[str], key: str) -> list[Member]:
    """Give the fields that came out of a sample their paths: as they went in, or new ones beside them."""
    rows = {field: row for row, field in enumerate(fields)}
    directory, slash, _ = paths[0].rpartition("/")
    base = f"{directory}{slash}{key.rpartition('/')[2]}"
    return [
        Member(rows[field], None, field, data) if field in rows else Member(0, f"{base}.{field}", field, data)
        for field, data in made
    ]
