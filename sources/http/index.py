"""What an index page lists: no sockets."""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import unquote, urljoin, urlsplit

from sources.errors import SourceConfigError


def names_in(page: str, url: str) -> list[str]:
    """Return the names that an index page links to, directly below it, directories with a last slash.

    Whatever leads elsewhere (the parent, other hosts, a page's own buttons for sorting) is left out, so any page that
    links to its files is an index: those of nginx, Apache, Python and most others.

    Args:
        page: HTML.
        url: Where it came from, ending in "/".

    Returns:
        Unescaped names, each once, in no particular order.

    Raises:
        SourceConfigError: If a name is not UTF-8 or would lead out of its directory.
    """
    links = _Links()
    links.feed(page)
    links.close()
    base = urlsplit(url)
    names = set()
    for link in links.found:
        try:
            target = urlsplit(urljoin(url, link))
        except ValueError:  # no URL at all: some script's
            continue
        if (target.scheme, target.netloc) == (base.scheme, base.netloc) and target.path.startswith(base.path):
            names.add(target.path[len(base.path) :])
    return [_unescaped(name) for name in names if _is_direct(name)]


def _is_direct(name: str) -> bool:
    return bool(name.rstrip("/")) and "/" not in name[:-1]


def _unescaped(name: str) -> str:
    try:
        text = unquote(name, errors="strict")
    except UnicodeDecodeError as error:
        raise SourceConfigError(f"the index page lists {name!r}, which is not UTF-8; rename it") from error
    if "/" in text[:-1] or text.rstrip("/") in ("", ".", ".."):
        raise SourceConfigError(f"the index page lists {name!r}, which Forebay cannot name; rename it")
    return text


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]
