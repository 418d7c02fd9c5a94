"""Options of an S3 source: s3fs's vocabulary, then the environment, then the profile."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import urlsplit

from sources.errors import SourceConfigError
from sources.options import check_known

if TYPE_CHECKING:
    from collections.abc import Mapping

_OPTIONS = (
    "anon", "client_kwargs", "config_kwargs", "endpoint_url", "key", "profile", "requester_pays", "secret", "token",
    "version_aware",
)  # fmt: skip
_CLIENT_OPTIONS = ("endpoint_url", "region_name", "verify")
_FLAGS = ("anon", "requester_pays", "version_aware")
_STYLES = ("auto", "path", "virtual")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_PROFILE_FILES = {"AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials", "AWS_CONFIG_FILE": "~/.aws/config"}
_DEFAULT_REGION = "us-east-1"
_HOST_LABEL = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")

Style = Literal["auto", "path", "virtual"]


@dataclass(frozen=True)
class StaticKeys:
    """Keys that do not change while the store is open."""

    key: str = field(repr=False)
    secret: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class S3Options:
    """What it takes to talk to one bucket.

    Attributes:
        bucket: Its name.
        endpoint: URL of the service without the bucket, None for AWS.
        region: Where the bucket lies.
        keys: From the options or the environment; None: anonymous, or what the credential chain finds.
        anon: Requests are not signed.
        profile: Section of the AWS files; None is the default one.
        requester_pays: The caller agrees to pay for the requests.
        version_aware: Objects are pinned by version id where the bucket has versions.
        style: Where the bucket's name goes: into the path or in front of the host.
        verify: Whether the server's certificate is checked, or the file of the authorities that may sign it.
    """

    bucket: str
    endpoint: str | None = None
    region: str = _DEFAULT_REGION
    keys: StaticKeys | None = None
    anon: bool = False
    profile: str | None = None
    requester_pays: bool = False
    version_aware: bool = False
    style: Style = "auto"
    verify: bool | str = True

    @property
    def is_virtual(self) -> bool:
        """Whether the bucket's name goes in front of the host; "auto" does so on AWS, as its own clients do."""
        if self.style == "auto":
            return self.endpoint is None and _HOST_LABEL.fullmatch(self.bucket) is not None
        return self.style == "virtual"

    @property
    def bucket_endpoint(self) -> str | None:
        """The endpoint, with the bucket in front of the host if that is the style."""
        if self.endpoint is None or not self.is_virtual:
            return self.endpoint
        parts = urlsplit(self.endpoint)
        return parts._replace(netloc=f"{self.bucket}.{parts.netloc}").geturl()


def read_options(uri: str, bucket: str, options: Mapping[str, object]) -> S3Options:
    """Check the options, and complete them from the environment and the AWS configuration files.

    Raises:
        SourceConfigError: Naming the option that is wrong.
    """
    client = _mapping(uri, options, "client_kwargs", _CLIENT_OPTIONS)
    config = _mapping(uri, options, "config_kwargs", ("s3",))
    s3 = _mapping(uri, config, "s3", ("addressing_style",))
    check_known(uri, options, _OPTIONS)
    flags = {name: _flag(uri, options, name) for name in _FLAGS}
    keys = _keys(uri, options)
    profile = _text(options, "profile") or (os.environ.get("AWS_PROFILE") if keys is None else None)
    endpoint = _text(options, "endpoint_url") or _text(client, "endpoint_url") or _environment(_ENDPOINTS)
    region = _text(client, "region_name") or _environment(_REGIONS)
    if profile or ((endpoint is None or (keys is None and not flags["anon"])) and has_profiles()):
        endpoint, region = _from_profile(uri, profile, endpoint, region)
    return S3Options(
        bucket,
        _checked_endpoint(uri, endpoint),
        region or _DEFAULT_REGION,
        None if flags["anon"] else keys,
        profile=profile,
        style=_style(uri, s3),
        verify=_verify(uri, client),
        **flags,
    )


def has_profiles() -> bool:
    """Say whether there are AWS configuration files."""
    files = (os.environ.get(name, default) for name, default in _PROFILE_FILES.items())
    return any(os.path.isfile(os.path.expanduser(file)) for file in files)


def _mapping(uri: str, options: Mapping[str, object], name: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    value = options.get(name) or {}
    if not isinstance(value, dict):
        raise SourceConfigError(f"{uri}: option {name} is a mapping, found {type(value).__name__}")
    check_known(uri, value, known)
    return value


def _flag(uri: str, options: Mapping[str, object], name: str) -> bool:
    value = options.get(name, False)
    if not isinstance(value, bool):  # "false" out of a ${VARIABLE} would count as true
        raise SourceConfigError(f"{uri}: option {name} is true or false, found {value!r}")
    return value


def _text(options: Mapping[str, object], name: str) -> str | None:
    return str(options[name]) if options.get(name) else None


def _environment(names: tuple[str, ...]) -> str | None:
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def _checked_endpoint(uri: str, endpoint: str | None) -> str | None:
    if endpoint is None:
        return None
    parts = urlsplit(endpoint)
    if "@" in parts.netloc:
        raise SourceConfigError(f"{uri}: endpoint_url carries credentials; pass them as options key and secret")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise SourceConfigError(f"{uri}: endpoint_url is a http:// or https:// URL, found {endpoint!r}")
    return endpoint.rstrip("/")


def _style(uri: str, s3: Mapping[str, object]) -> Style:
    style = s3.get("addressing_style", "auto")
    if style not in _STYLES:
        raise SourceConfigError(f"{uri}: option addressing_style is one of {', '.join(_STYLES)}, found {style!r}")
    return cast("Style", style)


def _verify(uri: str, client: Mapping[str, object]) -> bool | str:
    verify = client.get("verify")
    if verify is None:
        verify = os.environ.get("AWS_CA_BUNDLE") or True
    if not isinstance(verify, bool | str):
        raise SourceConfigError(f"{uri}: option verify is true, false or a file, found {verify!r}")
    if isinstance(verify, str) and not os.path.isfile(verify):
        raise SourceConfigError(f"{uri}: option verify: no file of certificates at {verify}")
    return verify


def _keys(uri: str, options: Mapping[str, object]) -> StaticKeys | None:
    key, secret, token = (_text(options, name) for name in ("key", "secret", "token"))
    if bool(key) != bool(secret):
        raise SourceConfigError(f"{uri}: options key and secret go together; one of them is missing")
    if key and secret:
        return StaticKeys(key, secret, token)
    if token:
        raise SourceConfigError(f"{uri}: option token goes with options key and secret, which are missing")
    if options.get("profile"):
        return None
    key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    return StaticKeys(key, secret, os.environ.get("AWS_SESSION_TOKEN")) if key and secret else None


def _from_profile(
    uri: str, profile: str | None, endpoint: str | None, region: str | None
) -> tuple[str | None, str | None]:
    """Complete endpoint and region from the AWS configuration files (obstore does not read them)."""
    import botocore.configprovider  # a third of a second that only profiles need to pay
    import botocore.exceptions
    import botocore.session

    session = botocore.session.Session(profile=profile)
    try:
        scoped = session.get_scoped_config()
        provider = botocore.configprovider.ConfiguredEndpointProvider(session.full_config, scoped, "s3", os.environ)
        return endpoint or provider.provide(), region or scoped.get("region")
    except botocore.exceptions.ProfileNotFound:
        named = profile or os.environ.get("AWS_PROFILE")
        raise SourceConfigError(f"{uri}: no profile {named!r} in the AWS configuration files") from None
    except botocore.exceptions.ConfigParseError as error:
        raise SourceConfigError(f"{uri}: the AWS configuration files cannot be read") from error
