"""The manifest that most working copies have, of a repository and nothing else, read without YAML and the models.

Loading those takes longer than the rest of a short command. Any other manifest, and a wrong one, is not for this.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from sources.uris import split_uri

if TYPE_CHECKING:
    from collections.abc import Mapping

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_WORDS = {"false", "no", "null", "off", "on", "true", "yes"}  # that YAML takes for something else than text
_PLAIN = re.compile(
    r"apiVersion: forebay\.dev/v1alpha1\nkind: Dataset\n"
    r"metadata:\n  name: (?P<name>[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?)\n"
    r"spec:\n  repo:\n    uri: (?P<uri>[a-z][a-z0-9+.-]*://[A-Za-z0-9_.~/${}%-]*)\n"
)


class PlainManifest(NamedTuple):
    """A dataset without mounts, cache and options.

    Attributes:
        name: Of the dataset.
        uri: Of its repository.
        prefix: Key prefix of the repository in its store: "" or ending in "/".
    """

    name: str
    uri: str
    prefix: str


def read_plain(text: str, variables: Mapping[str, str]) -> PlainManifest | None:
    """Read a manifest that `write_manifest` of `ds` may have written; None for one that needs `parse_manifest`."""
    found = _PLAIN.fullmatch(text)
    if found is None or found["name"] in _WORDS or not set(_VARIABLE.findall(found["uri"])) <= set(variables):
        return None
    uri = _VARIABLE.sub(lambda match: variables[match[1]], found["uri"])
    try:
        key = split_uri(uri).key.rstrip("/")
    except ValueError:
        return None
    return PlainManifest(found["name"], uri, f"{key}/" if key else "")
