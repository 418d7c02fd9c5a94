"""Types of fields that the declared objects share."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from dataset_controller.quantities import parse_quantity
from sources import split_uri

API_VERSION = "forebay.dev/v1alpha1"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


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


Name = Annotated[str, BeforeValidator(_checked_name)]
Uri = Annotated[str, BeforeValidator(_checked_uri)]
DirectoryPath = Annotated[str, BeforeValidator(_directory)]
Bytes = Annotated[int, BeforeValidator(parse_quantity)]
LocalPath = Annotated[str, Field(pattern="^/")]
"""Absolute path on a machine."""


class Model(BaseModel):
    """Base of everything declared: a field that is not known is an error, and names are in camel case."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


class Metadata(Model):
    """The object's name; unique per kind."""

    name: Name


class Reference(Model):
    """The name of another object."""

    name: Name
