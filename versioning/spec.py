"""What a repository is, as its repo.json says: format, hash and cut rules, frozen when it is created."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from versioning.chunking import INNER_RULE, LEAF_RULE, CutRule
from versioning.errors import RepositoryFormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = 1
_HASH = "blake3"
_KNOWN_FEATURES: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RepositorySpec:
    """What a repository is.

    Attributes:
        id: Random, 32 hex digits; tells two repositories apart wherever they are copied to.
        leaf: Cut rule of the leaves.
        inner: Cut rule of all levels above.
        features: Names of incompatible extensions; one that this version does not know is refused.
    """

    id: str
    leaf: CutRule = LEAF_RULE
    inner: CutRule = INNER_RULE
    features: tuple[str, ...] = ()

    @classmethod
    def new(cls, *, leaf: CutRule = LEAF_RULE, inner: CutRule = INNER_RULE) -> RepositorySpec:
        """Describe a new repository. Other cut rules than the default are for tests and experiments."""
        return cls(os.urandom(16).hex(), leaf, inner)

    def rule(self, level: int) -> CutRule:
        """Return the cut rule of a level (0: leaves)."""
        return self.leaf if level == 0 else self.inner


def encode_spec(spec: RepositorySpec) -> bytes:
    """Write repo.json; indented, since people look at it."""
    content = {
        "format": FORMAT,
        "id": spec.id,
        "hash": _HASH,
        "leaf": _encode_rule(spec.leaf),
        "inner": _encode_rule(spec.inner),
        "features": list(spec.features),
    }
    return json.dumps(content, indent=2).encode() + b"\n"


def decode_spec(data: bytes, *, uri: str) -> RepositorySpec:
    """Read repo.json; keys that this version does not know are ignored, features are not.

    Raises:
        RepositoryFormatError: If it is damaged, or needs a newer version; `uri` names it in the message.
    """
    try:
        content = json.loads(data)
        found = content["format"]
        if found != FORMAT or content["hash"] != _HASH:
            raise RepositoryFormatError(
                f"{uri} has format {found!r} with hash {content['hash']!r}, "
                f"this version reads format {FORMAT} with {_HASH}: upgrade forebay"
            )
        spec = _decode_fields(content)
    except RepositoryFormatError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RepositoryFormatError(f"{uri} is no description of a repository: {error!r}; restore it") from error
    unknown = sorted(set(spec.features) - _KNOWN_FEATURES)
    if unknown:
        raise RepositoryFormatError(
            f"{uri} uses features that this version lacks: {', '.join(unknown)}: upgrade forebay"
        )
    return spec


def _encode_rule(rule: CutRule) -> dict[str, int]:
    return {"target": rule.target, "min": rule.minimum, "max": rule.maximum}


def _decode_fields(content: Mapping[str, Any]) -> RepositorySpec:
    features = content["features"]
    if not isinstance(content["id"], str) or not isinstance(features, list):
        raise TypeError("id must be a string and features a list")
    return RepositorySpec(
        content["id"],
        _decode_rule(content["leaf"]),
        _decode_rule(content["inner"]),
        tuple(str(feature) for feature in features),
    )


def _decode_rule(rule: Mapping[str, Any]) -> CutRule:
    values = [rule["target"], rule["min"], rule["max"]]
    if not all(type(value) is int for value in values):
        raise TypeError(f"a cut rule has three whole numbers, found {values}")
    return CutRule(*values)
