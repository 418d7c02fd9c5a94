"""Azure Blob Storage, through obstore."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar, cast

import obstore
import pyarrow as pa
from obstore.exceptions import BaseError
from obstore.store import AzureStore as ObstoreAzure

from sources.errors import SourceConfigError, SourceNotFoundError
from sources.locations import StoreId
from sources.object_clients import client_options, once
from sources.object_failures import UnnameableKeyError
from sources.objects import empty_keys, is_listable, keep_empty
from sources.options import check_known
from sources.quoting import QuotedEtags
from sources.stores import LISTING_SCHEMA, DirectoryPage, batch_of
from sources.uris import split_uri

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from obstore.store import AzureConfig
    from typing_extensions import Buffer

    from sources.locations import ObjectStat, Version

_NAMES = {  # adlfs's word: obstore's
    "account_key": "account_key",
    "account_name": "account_name",
    "client_id": "client_id",
    "client_secret": "client_secret",
    "endpoint": "endpoint",
    "sas_token": "sas_key",
    "tenant_id": "tenant_id",
}
_OPTIONS = tuple(sorted([*_NAMES, "anon", "connection_string"]))
_CONNECTION = {  # a connection string's word: ours
    "AccountName": "account_name",
    "AccountKey": "account_key",
    "BlobEndpoint": "endpoint",
    "SharedAccessSignature": "sas_token",
}
_ENVIRONMENT = ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT")
_NEXT_STEP = "check the options account_name, account_key, sas_token and connection_string"


class AzureStore:
    """One container. The version of an object is its etag; every read of a pinned object sends `If-Match`.

    It is listed a directory at a time: the client's way to start after a key is ignored by servers that do not know it
    yet, and would cost all keys before it. Each call is one request, sent once. A forked child cannot use it; a spawned
    one can.

    Args:
        container: Its name.
        options: In adlfs's vocabulary; see `open`.
    """

    remote: ClassVar[bool] = True

    def __init__(self, container: str, options: Mapping[str, object]) -> None:
        self._options = dict(options)
        self._name = container
        self._container = _Container(container, options)
        self.id = self._container.id

    @classmethod
    def open(cls, uri: str, options: Mapping[str, object]) -> AzureStore:
        """Open the container of `az://container/...` (`abfs://` means the same).

        Options: `account_name`; `account_key`, `sas_token`, `connection_string`, or `tenant_id`, `client_id` and
        `client_secret`, or `anon`; `endpoint` for another than Azure's own. What they leave out comes from the
        environment (`AZURE_STORAGE_*`).
        """
        container = split_uri(uri).store.partition("://")[2]
        if not container:
            raise SourceConfigError(f"{uri}: the container is missing; expected az://container/prefix")
        return cls(container, options)

    def __reduce__(self) -> tuple[object, ...]:
        return AzureStore, (self._name, self._options)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """See `ListObjects.list`; one request per 5000 keys."""
        return self._container.list(prefix)

    def scan_directory(self, directory: str) -> DirectoryPage:
        """See `ListDirectories.scan_directory`."""
        return self._container.scan_directory(directory)

    def stat(self, key: str) -> ObjectStat:
        """See `ListObjects.stat`."""
        return self._container.stat(key)

    def read(self, key: str, *, start: int, length: int, version: Version | None) -> Buffer:
        """See `ReadRange.read`."""
        return self._container.read(key, start=start, length=length, version=version)

    def read_into(self, key: str, *, start: int, buffer: memoryview, version: Version | None) -> None:
        """See `ReadInto.read_into`."""
        self._container.read_into(key, start=start, buffer=buffer, version=version)

    def put(self, key: str, data: Buffer) -> None:
        """See `WriteObject.put`; large bodies go in blocks."""
        self._container.put(key, data)

    def delete(self, key: str) -> None:
        """See `WriteObject.delete`."""
        self._container.delete(key)

    def fetch(self, key: str) -> tuple[bytes, Version]:
        """See `SwapObject.fetch`."""
        return self._container.fetch(key)

    def swap(self, key: str, data: bytes, *, expect: Version | None) -> Version:
        """`If-None-Match: *` to create, `If-Match` to replace. See `SwapObject.swap`."""
        return self._container.swap(key, data, expect=expect)


class _Container(QuotedEtags):
    """Everything but what cannot be promised."""

    def __init__(self, container: str, options: Mapping[str, object]) -> None:
        store_id = StoreId(f"az://{container}")
        config = _config(store_id, options)
        try:
            client = ObstoreAzure(container, config=config, client_options=client_options(), retry_config=once())
        except (BaseError, ValueError):  # their texts may quote a key
            client = None
        if client is None:
            raise SourceConfigError(f"{store_id}: an option has a value that cannot be; {_NEXT_STEP}")
        super().__init__(store_id, client, next_step=_NEXT_STEP)

    def scan_directory(self, directory: str) -> DirectoryPage:
        """See `ListDirectories.scan_directory`."""
        self._check_not_forked()
        if not is_listable(directory):
            raise UnnameableKeyError(self._uri(directory))
        try:
            found = obstore.list_with_delimiter(self._client, directory or None, return_arrow=True)
        except self._failures as error:
            failure = self._failure(directory, error)
        else:
            return self._page(directory, pa.table(found["objects"]), list(found["common_prefixes"]))
        raise failure

    def _page(self, directory: str, objects: pa.Table, prefixes: list[str]) -> DirectoryPage:
        directories = sorted((f"{name.rstrip('/')}/" for name in prefixes), key=str.encode)
        if not objects.num_rows and not directories and directory:
            raise SourceNotFoundError(self._uri(directory), "directory")
        batches = [self._listing(batch, directory, after="") for batch in objects.to_batches() if batch.num_rows]
        files = pa.Table.from_batches(batches, LISTING_SCHEMA).sort_by("key").combine_chunks().to_batches()
        return DirectoryPage(files[0] if files else batch_of([]), directories)

    def _without_markers(self, page: pa.RecordBatch, prefix: str, *, after: str) -> pa.RecordBatch:
        """Drop empty objects that stand for directories, as "photos/" or, from Data Lake accounts, as "photos"."""
        return keep_empty(page, {key for key in empty_keys(page) if self._exists(key) and not self._is_directory(key)})

    def _is_directory(self, key: str) -> bool:
        try:
            found = next(iter(obstore.list(self._client, f"{key}/", chunk_size=1)), [])
        except self._failures as error:
            failure = self._failure(key, error)
        else:
            return bool(found)
        raise failure


def _config(uri: str, options: Mapping[str, object]) -> AzureConfig:
    """Translate adlfs's options into obstore's."""
    check_known(uri, options, _OPTIONS)
    if not isinstance(options.get("anon", False), bool):  # "false" out of a ${VARIABLE} would count as true
        raise SourceConfigError(f"{uri}: option anon is true or false, found {options['anon']!r}")
    told = {**_connection(uri, options.get("connection_string")), **options}
    config: dict[str, object] = {_NAMES[name]: told[name] for name in _NAMES if told.get(name)}
    for name, value in config.items():
        if not isinstance(value, str):
            raise SourceConfigError(f"{uri}: option {name} is a string, found {type(value).__name__}")
    if not str(config.get("endpoint", "https://")).startswith(("http://", "https://")):
        raise SourceConfigError(f"{uri}: option endpoint is a http:// or https:// URL")
    if "account_name" not in config and os.environ.keys().isdisjoint(_ENVIRONMENT):
        raise SourceConfigError(f"{uri}: option account_name is missing")
    if options.get("anon"):
        config["skip_signature"] = True
    return cast("AzureConfig", config)


def _connection(uri: str, text: object) -> dict[str, object]:
    """Take a connection string apart: `Name=value;...`."""
    if not text:
        return {}
    parts = dict(part.partition("=")[::2] for part in str(text).split(";") if part)
    if "AccountName" not in parts and "BlobEndpoint" not in parts:
        raise SourceConfigError(f"{uri}: option connection_string has neither AccountName nor BlobEndpoint")
    return {ours: parts[theirs] for theirs, ours in _CONNECTION.items() if parts.get(theirs)}
