"""How people name a dataset, a version and a path: `digits@main/images/3`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from ds.errors import TargetError

_TARGET = re.compile(
    r"^(?:ds://)?(?P<dataset>[a-z0-9][a-z0-9-]*)?(?:@(?P<revision>[^/]+))?(?:/(?P<path>.*))?$", re.DOTALL
)


@dataclass(frozen=True)
class Target:
    """A dataset, a version of it and a path in it; what is None or "" was left out.

    Attributes:
        dataset: Its name.
        revision: Branch, tag, commit or ancestor, as written; a "/" in a name is written `%2F`.
        path: Path in the version, without a first slash.
    """

    dataset: str | None = None
    revision: str | None = None
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read `[ds://][DATASET][@REVISION][/PATH]`.

        Raises:
            TargetError: If it is not of that form.
        """
        match = _TARGET.match(text)
        if match is None:
            raise TargetError(f"{text!r} is not [ds://]DATASET[@REVISION][/PATH], such as digits@main/images")
        revision = unquote(match["revision"]) if match["revision"] else None
        return cls(match["dataset"], revision, match["path"] or "")

    def __str__(self) -> str:
        revision = f"@{quote(self.revision, safe='~^')}" if self.revision else ""
        return f"ds://{self.dataset or ''}{revision}/{self.path}"
