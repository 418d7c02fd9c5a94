"""Web servers: `http://` and `https://`, read-only, through aiohttp."""

from sources.http.store import HttpStore

__all__ = ["HttpStore"]
