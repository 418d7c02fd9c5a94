"""What an index page lists: no sockets."""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

from sources.errors import SourceConfigError


def names_in(page: str, url: str) -> list[str]:
    """Return the names that an index page links to, directly below it, directories with a last slash.

    Whatever leads elsewhere (the parent, other hosts, a page's own buttons for sorting) is left out, so any page that
    links to its files is an index: those of nginx, Apache, Python and most others. Paths are compared unescaped:
    servers escape more or less of them in links than in requests.

    Args:
        page: HTML.
        url: Where it came from: a directory, or a page in it such as `index.html`.

    Returns:
        Unescaped names, each once, in no particular order.

    Raises:
        SourceConfigError: If a name is not UTF-8 or would lead out of its directory.
    """
    links = _Links()
    links.feed(page)
    links.close()
    base = urlsplit(url)
    above = _parts(base.path)[:-1]
    names = set()
    for link in links.found:
        try:
            target = urlsplit(urljoin(url, link))
        except ValueError:  # no URL at all: some script's
            continue
        parts = _parts(target.path)
        if (target.scheme, target.netloc) == (base.scheme, base.netloc) and parts[: len(above)] == above:
            name, *rest = parts[len(above) :] or [b""]
            if name and rest in ([], [b""]):
                names.add(_named(name) + "/" * len(rest))
    return list(names)


def _parts(path: str) -> list[bytes]:
    return [unquote_to_bytes(part) for part in path.split("/")]


def _named(name: bytes) -> str:
    if name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise SourceConfigError(f"the index page lists {name!r}, which Forebay cannot name; rename it")
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise SourceConfigError(f"the index page lists {name!r}, which is not UTF-8; rename it") from error


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]
