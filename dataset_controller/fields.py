"""Types of fields that the declared objects share."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

from dataset_controller.quantities import DURATION_PATTERN, QUANTITY_PATTERN, parse_duration, parse_quantity
from sources import split_uri

API_VERSION = "forebay.dev/v1alpha1"
_NAME_PATTERN = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(_NAME_PATTERN)


def _checked_name(name: Any) -> Any:
    if isinstance(name, str) and not _NAME.fullmatch(name):
        raise ValueError(f"expected up to 63 lower-case letters, digits and '-', as in DNS, found {name!r}")
    return name


def _checked_uri(uri: Any) -> Any:
    if isinstance(uri, str):
        split_uri(uri)
    return uri


def _directory(path: Any) -> Any:
    """Normalise a dataset path: no slash in front, one at the end; "" is the root."""
    if not isinstance(path, str):
        return path
    parts = [part for part in path.split("/") if part]
    if any(part in (".", "..") for part in parts):
        raise ValueError(f"'.' and '..' are not allowed in a dataset path, found {path!r}")
    return "/".join(parts) + "/" if parts else ""


Name = Annotated[
    str, BeforeValidator(_checked_name), WithJsonSchema({"type": "string", "pattern": f"^{_NAME_PATTERN}$"})
]
Uri = Annotated[
    str, BeforeValidator(_checked_uri), WithJsonSchema({"type": "string", "pattern": "^[a-z][a-z0-9+.-]*://"})
]
DirectoryPath = Annotated[str, BeforeValidator(_directory), WithJsonSchema({"type": "string"})]
Bytes = Annotated[
    int,
    BeforeValidator(parse_quantity),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": QUANTITY_PATTERN}),
]
"""A quantity as Kubernetes writes it."""
Duration = Annotated[
    float, BeforeValidator(parse_duration), WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN})
]
"""Seconds, written as "90s", "10m", "1h30m" or "2d"."""
LocalPath = Annotated[str, Field(pattern="^/")]
"""Absolute path on a machine."""


class Model(BaseModel):
    """Base of everything declared: a field that is not known is an error, and names are in camel case."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class Metadata(Model):
    """The object's name, unique per kind; the rest is for clusters."""

    name: Name
    namespace: Name | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class Reference(Model):
    """The name of another object."""

    name: Name
