"""One S3 bucket through obstore, long bodies where they can be through sockets: the fast way.

For keys that obstore can name, in processes that have its threads.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import pyarrow.compute as pc
from obstore.exceptions import BaseError
from obstore.store import S3Store as ObstoreS3

from sources.errors import SourceConfigError, SourceError
from sources.locations import StoreId
from sources.object_clients import client_options, is_forked, once
from sources.object_failures import FAILURES, UnnameableKeyError
from sources.objects import WHOLE_BYTES, empty_keys, is_nameable, keep_empty
from sources.s3 import sockets
from sources.s3.credentials import ChainKeys, next_step, provider
from sources.s3.together import Together
from sources.s3.versions import VersionedBucket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pyarrow as pa
    from obstore import GetOptions
    from obstore.store import S3Config, S3CredentialProvider

    from sources.object_failures import Failure
    from sources.objects import Body
    from sources.s3.credentials import FixedKeys
    from sources.s3.options import S3Options
    from sources.stores import Wanted, Wants

_REPLACEMENT = "\ufffd"
"""What servers write for a character that XML cannot carry: obstore does not ask for keys in percent encoding."""


class TruePages(Protocol):
    """Another way to the same listing, slower and with every key as the server has it."""

    def pages(self, prefix: str, *, after: str = "") -> Iterator[pa.RecordBatch]:
        """See `ListPages.pages`."""
        ...

    def raw_pages(self, prefix: str, *, after: str) -> Iterator[pa.RecordBatch]:
        """Yield the same with the markers of directories, which end in a slash."""
        ...


class NativeBucket(VersionedBucket):
    """See `ObjectStore`.

    Args:
        options: Where the bucket is.
        other_way: Gives what lists where obstore does not tell right; costs nothing until it is called.
    """

    def __init__(self, options: S3Options, other_way: Callable[[], TruePages]) -> None:
        store_id = StoreId(f"s3://{options.bucket}")
        self._other_way = other_way
        self._version_aware = options.version_aware
        self._keys = provider(store_id, options)
        self._sockets = sockets.SocketReader(options, self._keys) if sockets.fits(options) else None
        super().__init__(store_id, _client(options, self._keys), next_step=next_step(options))

    def pages(self, prefix: str, *, after: str = "") -> Iterator[pa.RecordBatch]:
        """See `ListPages.pages`; a page with a key that obstore cannot name is listed the other way.

        So is the rest of a listing that a forked child goes on with.
        """
        last = after
        while True:
            try:
                for page in super().pages(prefix, after=last):
                    yield page
                    last = page.column("key")[-1].as_py()
            except SourceConfigError as error:
                if not (isinstance(error, UnnameableKeyError) or is_forked()):
                    raise
                odd = next(self._other_way().pages(prefix, after=last), None)
            else:
                return
            if odd is None:  # markers of directories were all that was left
                return
            yield odd
            last = odd.column("key")[-1].as_py()

    def _listing(self, page: pa.RecordBatch, prefix: str, *, after: str) -> pa.RecordBatch:
        if pc.any(pc.match_substring(page.column("path"), _REPLACEMENT)).as_py():
            raise UnnameableKeyError(self._uri(prefix))
        return super()._listing(page, prefix, after=after)

    def _without_markers(self, page: pa.RecordBatch, prefix: str, *, after: str) -> pa.RecordBatch:
        """List the page again with its true keys, instead of a request for each empty object."""
        empty = empty_keys(page)
        found: set[str] = set()
        directories: set[str] = set()
        seen = 0
        for raw in self._other_way().raw_pages(prefix, after=after):
            found |= empty_keys(raw)
            directories |= {key[: key.rfind("/")] for key in cast("list[str]", raw.column("key").to_pylist())}
            seen += raw.num_rows
            if seen > 2 * page.num_rows or all(key in found or f"{key}/" in found for key in empty):
                break
        sure = {key for key in empty & found if key not in directories}
        unclear = {key for key in empty - sure if key in found or f"{key}/" not in found}
        return keep_empty(page, sure | {key for key in unclear if self._exists(key)})

    def _open(self, key: str, options: GetOptions) -> Body:
        if self._sockets is not None and "range" in options:
            start, end = cast("tuple[int, int]", options["range"])
            if end - start > WHOLE_BYTES and (body := self._sockets.open(key, options)) is not None:
                return body
        return super()._open(key, options)

    def _drop(self, answer: Body) -> None:
        if isinstance(answer, sockets.SocketBody):
            answer.close()

    def _classified(self, error: Exception) -> Failure:
        return sockets.classify(error) or super()._classified(error)

    @property
    def can_read_together(self) -> bool:
        """See `ReadTogether`: where sockets can be used."""
        return self._sockets is not None

    def read_together(self, wants: Wants, *, at_once: int) -> None:
        """See `ReadTogether`."""
        if self._sockets is not None:
            Together(self._sockets, self, wants).run(at_once)

    # --- what `Together` asks

    failures = (*FAILURES, SourceError)

    def request(self, wanted: Wanted) -> bytes:
        """See `Bucket`."""
        assert self._sockets is not None
        if not is_nameable(wanted.key):
            raise UnnameableKeyError(self._uri(wanted.key))
        options = self._ranged(wanted.key, wanted.start, wanted.length, wanted.version)
        return self._sockets.asker.request(wanted.key, options)

    def check(self, wanted: Wanted, meta: Mapping[str, Any]) -> None:
        """See `Bucket`."""
        self._check_served(wanted.key, wanted.version, meta)

    def explain(self, wanted: Wanted, error: Exception) -> SourceError:
        """See `Bucket`."""
        return self._read_failure(wanted.key, error, wanted.version)

    def short(self, wanted: Wanted, received: int) -> SourceError:
        """See `Bucket`."""
        return self._short(wanted.key, wanted.start, wanted.length, received)

    def _check(self, key: str) -> None:
        """`S3Store` sends no key and no process here that does not belong here."""

    def _explained(self, failure: Failure, key: str, received: int = 0) -> SourceError:
        told = self._keys.failure if isinstance(self._keys, ChainKeys) else None
        if told is not None and failure.status in (0, 401):  # obstore calls it unauthenticated
            return told
        return super()._explained(failure, key, received)


def _client(options: S3Options, keys: FixedKeys | ChainKeys | None) -> ObstoreS3:
    config: dict[str, object] = {
        "region": options.region,
        "virtual_hosted_style_request": options.is_virtual,
        "skip_signature": options.anon,
        "request_payer": options.requester_pays,
        "disable_bulk_delete": True,  # one key at a time is what we delete, and what every server can
    }
    if options.bucket_endpoint:  # both names: obstore reads either from the environment too, and it must not win
        config |= {"endpoint": options.bucket_endpoint, "aws_endpoint_url_s3": options.bucket_endpoint}
    try:
        return ObstoreS3(
            options.bucket,
            config=cast("S3Config", config),
            client_options=client_options(**_trust(options.verify)),
            retry_config=once(),
            credential_provider=cast("S3CredentialProvider | None", keys),
        )
    except BaseError:  # its text may quote what is in the environment
        pass
    raise SourceConfigError(
        f"s3://{options.bucket}: no client can be made of these options; check the AWS_* variables of the environment"
    )


def _trust(verify: bool | str) -> dict[str, object]:
    if isinstance(verify, str):
        return {"root_certificate": Path(verify).read_bytes()}
    return {} if verify else {"allow_invalid_certificates": True}
