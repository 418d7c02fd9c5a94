"""Which version an S3 object has: by its etag, or by its version id where the bucket keeps versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sources.locations import Version
from sources.objects import ObjectStore

if TYPE_CHECKING:
    from collections.abc import Mapping

    from obstore import GetOptions

_NO_ID = (None, "", "null")  # "null" names what was written before the bucket kept versions: it can be overwritten


class VersionedBucket(ObjectStore):
    """An `ObjectStore` whose objects have version ids, if `version_aware`; reads take both kinds of token."""

    _version_aware = False

    def _token(self, key: str, meta: Mapping[str, Any]) -> Version:
        if self._version_aware and meta.get("version") not in _NO_ID:
            return Version(f"vid:{meta['version']}")
        return super()._token(key, meta)

    def _pinned(self, version: Version) -> GetOptions:
        return {"version": version[4:]} if version.startswith("vid:") else super()._pinned(version)

    def _served(self, key: str, version: Version, meta: Mapping[str, Any]) -> Version:
        if version.startswith("vid:"):
            return Version(f"vid:{meta.get('version')}")
        return super()._token(key, meta)

    def _swappable(self, key: str, meta: Mapping[str, Any]) -> Version:
        return super()._token(key, meta)  # conditions compare etags
