"""S3 and everything that speaks its protocol, through obstore."""

from __future__ import annotations

import logging
import os
import re
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, cast

import obstore
from obstore import exceptions as failures
from obstore.store import S3Store as ObstoreS3

from sources.errors import (
    SourceAuthError,
    SourceChangedError,
    SourceConfigError,
    SourceError,
    SourceNotFoundError,
    SourceUnavailableError,
    SwapLostError,
)
from sources.generic import FsspecStore
from sources.locations import ObjectStat, StoreId, Version
from sources.uris import split_uri

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from obstore import GetOptions, ObjectMeta
    from obstore.store import S3Config
    from typing_extensions import Buffer

_log = logging.getLogger(__name__)
_IMPORTED_BY = os.getpid()

_OPTIONS = ("anon", "client_kwargs", "endpoint_url", "key", "profile", "requester_pays", "secret", "token")
_CLIENT_OPTIONS = ("endpoint_url", "region_name")
_RETRY_SECONDS = 30
_REQUEST_SECONDS = 60
_CONNECT_SECONDS = 5
_ENVIRONMENT_KEYS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)
_PROFILE_FILES = {"AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials", "AWS_CONFIG_FILE": "~/.aws/config"}
_ROLES = ("iam-role", "container-role")  # of the machine: obstore renews what they give
_BUCKET_GONE = "NoSuchBucket"
_NEXT_STEP = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the options key, secret and profile"
_REFUSED = re.compile(r"\b(403|401) |AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken")
_INVALID_KEY = "Forebay cannot name a key with an empty, '.' or '..' part or a control character"
_PATH_IN_ERROR = re.compile(r'Path "(.*?)"(?:: | contained )', re.DOTALL)
_CREDENTIALS_MISSING = re.compile(r"credential", re.IGNORECASE)


class S3Store:
    """One bucket. The version of an object is its etag; every read of a pinned object sends `If-Match`.

    Safe in threads, spawned processes and forks. obstore's threads do not survive a fork and a call would hang, so a
    forked child (a DataLoader worker, say) reads through s3fs instead, and is told that it cannot write.

    Args:
        bucket: Its name.
        options: In s3fs's vocabulary; see `open`.
    """

    def __init__(self, bucket: str, options: Mapping[str, object]) -> None:
        self.id = StoreId(f"s3://{bucket}")
        self._options = dict(options)
        config = _config(self.id, options)
        self._store = ObstoreS3(
            bucket,
            config=config,
            client_options={
                "allow_http": True,
                "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
                "timeout": timedelta(seconds=_REQUEST_SECONDS),
            },
            retry_config={
                "max_retries": 6,
                "retry_timeout": timedelta(seconds=_RETRY_SECONDS),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=5),
                    "base": 2,
                },
            },
        )

    @classmethod
    def open(cls, uri: str, options: Mapping[str, object]) -> S3Store:
        """Open the bucket of `s3://bucket/...` with options in s3fs's vocabulary.

        What the options leave out comes from the environment (`AWS_*`), then from the default profile.
        """
        bucket = split_uri(uri).store.removeprefix("s3://")
        if not bucket:
            raise SourceConfigError(f"{uri}: the bucket is missing; expected s3://bucket/prefix")
        return cls(bucket, options)

    def __reduce__(self) -> tuple[object, ...]:
        return S3Store, (self.id.removeprefix("s3://"), self._options)

    @cached_property
    def _after_fork(self) -> FsspecStore:
        return FsspecStore.open(f"fsspec+{self.id}/", self._options)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """See `ListObjects.list`; one request per 1000 keys."""
        if os.getpid() != _IMPORTED_BY:
            yield from self._after_fork.list(prefix)
            return
        if "//" in f"/{prefix}":  # obstore takes it for one slash, and then nothing would be below it
            raise SourceConfigError(f"{self._uri(prefix)}: {_INVALID_KEY}; correct the URI, or rename what is there")
        with self._translated(prefix):
            for batch in obstore.list(self._store, prefix=_listable(prefix)):
                for meta in batch:
                    if meta["path"].startswith(prefix) and not self._is_marker(meta):
                        yield _stat(meta)  # a prefix may end inside a name, obstore's may not

    def stat(self, key: str) -> ObjectStat:
        """See `ListObjects.stat`."""
        if os.getpid() != _IMPORTED_BY:
            return self._after_fork.stat(key)
        with self._translated(key):
            return _stat(obstore.head(self._store, key))

    def read(self, key: str, *, start: int, length: int, version: Version | None) -> Buffer:
        """See `ReadRange.read`."""
        if not length:
            return b""
        if os.getpid() != _IMPORTED_BY:
            return self._after_fork.read(key, start=start, length=length, version=version)
        options: GetOptions = {"range": (start, start + length)}
        if version is not None and version.startswith("etag:"):
            options["if_match"] = version.removeprefix("etag:")
        try:
            with self._translated(key):
                body = obstore.get(self._store, key, options=options).bytes()
        except SourceNotFoundError as error:
            if version is None or error.what != "object":
                raise
            raise SourceChangedError(self._uri(key), expected=version, found="gone") from error
        except SwapLostError as error:  # 412 to If-Match
            found = self.stat(key).version
            raise SourceChangedError(self._uri(key), expected=str(version), found=found) from error
        if len(body) != length:
            raise SourceUnavailableError(f"{self._uri(key)}: asked for {length} bytes at {start}, got {len(body)}")
        return body

    def put(self, key: str, data: Buffer) -> None:
        """See `WriteObject.put`; large bodies go as multipart uploads."""
        self._check_not_forked()
        with self._translated(key):
            obstore.put(self._store, key, obstore.Bytes(memoryview(data).cast("B")))

    def delete(self, key: str) -> None:
        """See `WriteObject.delete`."""
        self._check_not_forked()
        with self._translated(key):
            try:
                obstore.delete(self._store, key)
            except (failures.NotFoundError, FileNotFoundError):
                return

    def fetch(self, key: str) -> tuple[bytes, Version]:
        """See `SwapObject.fetch`."""
        if os.getpid() != _IMPORTED_BY:
            stat = self._after_fork.stat(key)
            return self._after_fork.read(key, start=0, length=stat.size, version=stat.version), stat.version
        with self._translated(key):
            result = obstore.get(self._store, key)
            return bytes(result.bytes()), _version(result.meta)

    def swap(self, key: str, data: bytes, *, expect: Version | None) -> Version:
        """`If-None-Match: *` to create, `If-Match` to replace. See `SwapObject.swap`."""
        self._check_not_forked()
        mode = "create" if expect is None else {"e_tag": expect.removeprefix("etag:")}
        try:
            with self._translated(key, expect):
                written = obstore.put(self._store, key, data, mode=cast("obstore.PutMode", mode), use_multipart=False)
        except SourceNotFoundError as error:  # AWS answers 404, not 412, to If-Match on a missing key
            if error.what != "object":
                raise
            raise SwapLostError(self._uri(key), expected=expect) from error
        return _version({"e_tag": written["e_tag"]}, self._uri(key))

    def _is_marker(self, meta: ObjectMeta) -> bool:
        """Say whether an empty object is a directory's marker ("photos/"): obstore lists it without the slash."""
        if meta["size"]:
            return False
        try:
            obstore.head(self._store, meta["path"])
        except (failures.NotFoundError, FileNotFoundError):
            return True
        return False

    def _check_not_forked(self) -> None:
        if os.getpid() != _IMPORTED_BY:
            raise SourceConfigError(f"{self.id}: a forked process cannot write; start it with spawn or forkserver")

    def _uri(self, key: str) -> str:
        return f"{self.id}/{key}"

    @contextmanager
    def _translated(self, key: str, expect: Version | None = None) -> Iterator[None]:
        """Turn obstore's errors into ours; their texts are left out of the message, for they may quote a request."""
        try:
            yield
        except SourceError:
            raise
        except (failures.NotFoundError, FileNotFoundError) as error:
            gone = _BUCKET_GONE in str(error)
            raise SourceNotFoundError(self.id if gone else self._uri(key), "bucket" if gone else "object") from error
        except (failures.PreconditionError, failures.AlreadyExistsError) as error:
            raise SwapLostError(self._uri(key), expected=expect) from error
        except (failures.PermissionDeniedError, failures.UnauthenticatedError) as error:
            raise self._refused() from error
        except (failures.InvalidPathError, ValueError) as error:
            raise SourceConfigError(f"{self._uri(key)}: {_INVALID_KEY}{_named(str(error))}; rename it") from error
        except failures.BaseError as error:
            raise self._other(key, str(error)) from error

    def _other(self, key: str, text: str) -> SourceError:
        """Sort out what obstore calls generic: a listing's 403 and 404 arrive so."""
        if _BUCKET_GONE in text:
            return SourceNotFoundError(self.id, "bucket")
        if _REFUSED.search(text):
            return self._refused()
        if _CREDENTIALS_MISSING.search(text):
            return SourceAuthError(f"{self.id}: no credentials found; {_NEXT_STEP}, or the option anon: true")
        _log.debug("request failed store=%s key=%s error=%s", self.id, key, text)
        return SourceUnavailableError(f"{self._uri(key)}: {_reason(text)}")

    def _refused(self) -> SourceAuthError:
        return SourceAuthError(f"{self.id} refuses these credentials; {_NEXT_STEP}")


def _config(uri: str, options: Mapping[str, object]) -> S3Config:
    """Translate s3fs's options into obstore's."""
    client = options.get("client_kwargs") or {}
    if not isinstance(client, dict):
        raise SourceConfigError(f"{uri}: option client_kwargs is a mapping, found {type(client).__name__}")
    for name, known in ((options, _OPTIONS), (client, _CLIENT_OPTIONS)):
        unknown = sorted(set(name) - set(known))
        if unknown:
            raise SourceConfigError(f"{uri}: unknown option {unknown[0]!r}; known: {', '.join(known)}")
    for flag in ("anon", "requester_pays"):  # "false" out of a ${VARIABLE} would count as true
        if not isinstance(options.get(flag, False), bool):
            raise SourceConfigError(f"{uri}: option {flag} is true or false, found {options[flag]!r}")
    config: dict[str, object] = {}
    endpoint = options.get("endpoint_url") or client.get("endpoint_url")
    if endpoint:
        if not str(endpoint).startswith(("http://", "https://")):
            raise SourceConfigError(f"{uri}: endpoint_url is a http:// or https:// URL, found {endpoint!r}")
        config["endpoint"] = endpoint
    if client.get("region_name"):
        config["region"] = client["region_name"]
    if options.get("anon"):
        config["skip_signature"] = True
    if options.get("requester_pays"):
        config["request_payer"] = True
    config.update(_keys(uri, options))
    return cast("S3Config", config)


def _keys(uri: str, options: Mapping[str, object]) -> dict[str, object]:
    if bool(options.get("key")) != bool(options.get("secret")):
        raise SourceConfigError(f"{uri}: options key and secret go together; one of them is missing")
    if options.get("key"):
        keys = {"access_key_id": options["key"], "secret_access_key": options["secret"]}
        return {**keys, "session_token": options["token"]} if options.get("token") else keys
    if options.get("profile"):
        return _profile_keys(uri, str(options["profile"]))
    if options.get("anon") or not os.environ.keys().isdisjoint(_ENVIRONMENT_KEYS) or not _has_profiles():
        return {}  # obstore looks at the environment, and asks the machine's own role
    return _profile_keys(uri, os.environ.get("AWS_PROFILE"))


def _has_profiles() -> bool:
    files = (os.environ.get(name, default) for name, default in _PROFILE_FILES.items())
    return any(os.path.isfile(os.path.expanduser(file)) for file in files)


def _profile_keys(uri: str, profile: str | None) -> dict[str, object]:
    """Read a profile of the AWS configuration files (obstore itself does not); None is the default, if there is one."""
    import botocore.exceptions  # a third of a second that only profiles need to pay
    import botocore.session

    try:
        session = botocore.session.Session(profile=profile)
        credentials = session.get_credentials()
    except botocore.exceptions.ProfileNotFound as error:
        raise SourceConfigError(f"{uri}: no profile {profile!r} in the AWS configuration files") from error
    if profile is None and (credentials is None or credentials.method in _ROLES):
        return {}
    if credentials is None:
        raise SourceConfigError(f"{uri}: profile {profile!r} holds no credentials")
    frozen = credentials.get_frozen_credentials()
    keys: dict[str, object] = {"access_key_id": frozen.access_key, "secret_access_key": frozen.secret_key}
    if frozen.token:
        keys["session_token"] = frozen.token
    region = session.get_config_variable("region")
    return {**keys, "region": region} if region else keys


def _listable(prefix: str) -> str:
    """Obstore lists whole path segments: cut the prefix back to the last "/"."""
    return prefix[: prefix.rfind("/") + 1]


def _stat(meta: ObjectMeta) -> ObjectStat:
    mtime_ns = int(meta["last_modified"].timestamp() * 1_000_000) * 1000
    return ObjectStat(meta["path"], meta["size"], _version(meta, meta["path"]), mtime_ns)


def _version(meta: Mapping[str, object], what: str = "") -> Version:
    if not meta["e_tag"]:
        raise SourceConfigError(f"{what}: the store gives no etag, so the object cannot be pinned")
    return Version(f"etag:{meta['e_tag']}")


def _named(text: str) -> str:
    """Return the key that obstore complains about, to be appended to a sentence."""
    match = _PATH_IN_ERROR.search(text)
    return f": {match[1]!r}" if match else ""


def _reason(text: str) -> str:
    """Keep the part of a client error that says what happened, without URLs and requests."""
    lowered = text.lower()
    for word, reason in (
        ("dns error", "the endpoint's name does not resolve; check endpoint_url"),
        ("connection refused", "connection refused; is the endpoint right and the server up?"),
        ("timed out", "no answer in time; is the endpoint reachable?"),
        ("connect", "cannot connect; is the endpoint right and the server up?"),
        ("503", "the store is throttling (503); try again later"),
    ):
        if word in lowered:
            return reason
    return "the request failed after its retries; the log has the details at level DEBUG"
