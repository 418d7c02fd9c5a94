"""Options of `http://` and `https://` sources."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sources.errors import SourceConfigError
from sources.options import check_known

_KNOWN = ("headers", "params", "password", "user")
_OURS = re.compile(r"range|if-.*|accept-encoding|content-.*|host|connection|transfer-encoding", re.IGNORECASE)
_LINE = re.compile(r"[\r\n\0]")


@dataclass(frozen=True)
class HttpOptions:
    """What goes along with each request, to the origin of the source only.

    Attributes:
        headers: Such as `Authorization`; those that the store needs for itself are refused.
        params: Query of each URL: tokens of servers that want them there. Never part of a name.
    """

    headers: dict[str, str] = field(repr=False)
    params: dict[str, str] = field(repr=False)

    @classmethod
    def of(cls, uri: str, options: Mapping[str, object]) -> HttpOptions:
        """Check options.

        Raises:
            SourceConfigError: Naming the option, never its value.
        """
        check_known(uri, options, _KNOWN)
        headers = _texts(uri, "headers", options.get("headers", {}))
        if reserved := next((name for name in headers if _OURS.fullmatch(name)), None):
            raise SourceConfigError(f"{uri}: the header {reserved!r} is the store's own")
        user, password = options.get("user"), options.get("password")
        if (user is None) != (password is None):
            raise SourceConfigError(f"{uri}: user and password go together")
        if user is not None:
            if any(name.lower() == "authorization" for name in headers):
                raise SourceConfigError(f"{uri}: a user and a header Authorization exclude each other")
            headers["Authorization"] = _basic(uri, str(user), str(password))
        return cls(headers, _texts(uri, "params", options.get("params", {})))


def _texts(uri: str, option: str, value: object) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(text, str) for pair in value.items() for text in pair):
        raise SourceConfigError(f"{uri}: {option} is a mapping of names to texts")
    if any(_LINE.search(text) for pair in value.items() for text in pair):
        raise SourceConfigError(f"{uri}: {option} contains a line break")
    return dict(value)


def _basic(uri: str, user: str, password: str) -> str:
    if ":" in user:
        raise SourceConfigError(f"{uri}: a user has no colon")
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
