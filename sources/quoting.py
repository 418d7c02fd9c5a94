"""Etags as HTTP writes them, also where a store's listing leaves the quotes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from sources.locations import Version
from sources.objects import ObjectStore

if TYPE_CHECKING:
    from collections.abc import Mapping


class QuotedEtags(ObjectStore):
    """An `ObjectStore` whose listing tells the etags of stat and read, but without their quotes."""

    def _token(self, key: str, meta: Mapping[str, object]) -> Version:
        found = super()._token(key, meta)
        etag = found.removeprefix("etag:")
        return found if etag.endswith('"') else Version(f'etag:"{etag}"')

    def _tokens(self, page: pa.RecordBatch) -> pa.Array[pa.StringScalar]:
        return pc.replace_substring_regex(super()._tokens(page), '^etag:([^"]*)$', 'etag:"\\1"')
