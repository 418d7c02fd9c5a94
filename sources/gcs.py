"""Google Cloud Storage, through obstore."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, cast

from obstore.exceptions import BaseError
from obstore.store import GCSStore as ObstoreGcs

from sources.errors import SourceAuthError, SourceConfigError
from sources.locations import StoreId, Version
from sources.object_clients import client_options, once
from sources.options import check_known
from sources.quoting import QuotedEtags
from sources.uris import split_uri

if TYPE_CHECKING:
    from collections.abc import Mapping

    from obstore import PutMode
    from obstore.store import GCSConfig

_OPTIONS = ("endpoint_url", "project", "token")
_DEFAULT_CHAIN = ("google_default", "cloud")
_ANONYMOUS = "anon"
_NEXT_STEP = "check GOOGLE_APPLICATION_CREDENTIALS, or the option token"


class GcsStore(QuotedEtags):
    """One bucket. The version of an object is its etag; every read of a pinned object sends `If-Match`.

    What `fetch` and `swap` compare is the generation, which Google's preconditions on writes take: it is new with every
    write, also of the same bytes. Each call is one request, sent once. A forked child cannot use it; a spawned one can.

    Args:
        bucket: Its name.
        options: In gcsfs's vocabulary; see `open`.
    """

    def __init__(self, bucket: str, options: Mapping[str, object]) -> None:
        store_id = StoreId(f"gs://{bucket}")
        self._options = dict(options)
        config = _config(store_id, options)
        try:
            client = ObstoreGcs(bucket, config=config, client_options=client_options(), retry_config=once())
        except (BaseError, ValueError):  # their texts may quote a key
            client = None
        if client is None:
            raise SourceConfigError(f"{store_id}: the credentials cannot be read; {_NEXT_STEP}")
        super().__init__(store_id, client, next_step=_NEXT_STEP)

    @classmethod
    def open(cls, uri: str, options: Mapping[str, object]) -> GcsStore:
        """Open the bucket of `gs://bucket/...`.

        Options: `token` (a credentials file, what is in one, an access token, `anon`, or `google_default`: the
        environment, gcloud's login, the machine's own account, which is also what happens without it), `endpoint_url`,
        `project` (only gcsfs needs it).
        """
        bucket = split_uri(uri).store.removeprefix("gs://")
        if not bucket:
            raise SourceConfigError(f"{uri}: the bucket is missing; expected gs://bucket/prefix")
        return cls(bucket, options)

    def __reduce__(self) -> tuple[object, ...]:
        return GcsStore, (self.id.removeprefix("gs://"), self._options)

    def _write(self, key: str, body: memoryview) -> None:
        self._check_named()
        super()._write(key, body)

    def _swap(self, key: str, data: bytes, mode: PutMode) -> Mapping[str, Any]:
        self._check_named()
        return super()._swap(key, data, mode)

    def _remove(self, key: str) -> None:
        self._check_named()
        super()._remove(key)

    def _check_named(self) -> None:
        """Obstore reads without a name, but would ask the machine for one before it writes."""
        if self._options.get("token") == _ANONYMOUS:
            raise SourceAuthError(f"{self.id} is opened with token: anon, which can only read; {_NEXT_STEP}")

    def _swappable(self, key: str, meta: Mapping[str, object]) -> Version:
        if not meta["version"]:
            raise SourceConfigError(f"{self._uri(key)}: the store tells no generation, so it cannot be swapped")
        return Version(f"vid:{meta['version']}")

    def _mode(self, expect: Version) -> PutMode:
        return {"version": expect.removeprefix("vid:")}


def _config(uri: str, options: Mapping[str, object]) -> GCSConfig:
    """Translate gcsfs's options into obstore's."""
    check_known(uri, options, _OPTIONS)
    config = _credentials(uri, options.get("token"))
    endpoint = options.get("endpoint_url")
    if endpoint:
        if not str(endpoint).startswith(("http://", "https://")):
            raise SourceConfigError(f"{uri}: endpoint_url is a http:// or https:// URL, found {endpoint!r}")
        config["base_url"] = str(endpoint).rstrip("/")
    return cast("GCSConfig", config)


def _credentials(uri: str, token: object) -> dict[str, object]:
    if token is None or token in _DEFAULT_CHAIN:
        return {}
    if token == _ANONYMOUS:
        return {"skip_signature": True}
    if isinstance(token, dict):
        return {"service_account_key": json.dumps(token)}
    if not isinstance(token, str):
        raise SourceConfigError(f"{uri}: option token is a string or a mapping, found {type(token).__name__}")
    if os.path.isabs(token) or token.endswith(".json"):
        if not os.path.isfile(token):
            raise SourceConfigError(f"{uri}: option token names no file: {token}")
        return {"application_credentials": token}
    return {"bearer_token": token}
