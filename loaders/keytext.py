"""Keys of samples by where they lie in their text."""

from __future__ import annotations

_MOST_BYTES = 16 << 20


class _Utf8:
    """Text as bytes: what is cut out is decoded."""

    __slots__ = ("_text",)

    def __init__(self, text: memoryview) -> None:
        self._text = text

    def __getitem__(self, where: slice) -> str:
        return str(self._text[where], "utf-8")


def key_text(text: memoryview) -> str | _Utf8:
    """Return text of which `[begin:end]`, in bytes, is a `str`.

    Up to 16 MiB of ASCII are decoded at once: cutting a key out of that takes a third of the time.
    """
    if len(text) <= _MOST_BYTES and (whole := bytes(text)).isascii():
        return whole.decode("ascii")
    return _Utf8(text)
