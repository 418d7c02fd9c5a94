"""Where to cut a range of keys in two when nothing is known about it but the keys seen so far.

Some servers (SeaweedFS) list directory by directory: for them "/" comes before every other character ("directory
order"). A cut is always `position[:n]`, then at most one character, then "~", where everything added sorts after "/".
For such a cut the following holds on a server that keeps either order, as long as the part listed so far ascended in
byte order: no key at or before the cut in directory order lies behind it in byte order. (For a key k that did, the
first difference would be "/" in k and a character before "/" in the cut, so it would be one of `position`'s own; then k
was listed before `position` and compared greater, which is a violation of the order, or it lies before the range's own
start, which was such a cut.) It follows that the range below the cut is never left too early, that the ranges cover
every key in directory order too, and that a key which falls out of byte order is met by some range as a key that does
not ascend. So the result is complete and ordered, or the violation is seen.

The "~" also keeps a cut from being the name of a directory: SeaweedFS, asked for keys after `in/b`, leaves out all of
`in/b/`. Where a directory is called `b~`, the seam check of `ranges` notices.
"""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_CLASSES = tuple(
    tuple(sorted(members))
    for members in (
        string.digits,
        string.digits + "abcdef",
        string.digits + "ABCDEF",
        string.ascii_lowercase,
        string.ascii_uppercase,
        string.digits + string.ascii_lowercase,
    )
)
_END = "~"
_DEPTH = 256  # characters of a key that are looked at


class Alphabet:
    """The characters that occur, and at which depth: a sample of keys goes in, likely characters come out."""

    def __init__(self) -> None:
        self._anywhere: set[str] = set()
        self._at: dict[int, set[str]] = {}
        self.shared: str | None = None
        """What all of them begin with; None before the first."""

    def add(self, keys: Iterable[str]) -> None:
        """Learn from some keys."""
        for key in keys:
            self.shared = key if self.shared is None else key[: _shared(self.shared, key)]
            self._anywhere.update(key)
            for depth, character in enumerate(key[:_DEPTH]):
                self._at.setdefault(depth, set()).add(character)

    def likely(self, depth: int) -> list[str]:
        """Return the characters that may follow "/" in order and are likely at `depth`, sorted."""
        seen = {character for character in self._at.get(depth, ()) if character > "/"}
        if not seen:
            return sorted(character for character in self._anywhere if character > "/")
        for members in _CLASSES:
            if seen.issubset(members):
                return list(members)
        return sorted(character for character in self._anywhere | seen if character > "/")


def split_key(position: str, until: str | None, *, prefix: str, alphabet: Alphabet) -> str | None:
    """Choose a key between `position` and `until`, hopefully with as much before as behind it.

    Args:
        position: Last key that was seen of this range.
        until: Where the range ends; None for the end of the listing.
        prefix: What all keys start with.
        alphabet: What the keys look like.

    Returns:
        A key in the open interval (position, until), or None if there is none of the form that is safe.
    """
    level = len(prefix) if until is None else max(len(prefix), _shared(position, until))
    seen = len(alphabet.shared or "")
    if (
        seen > level
    ):  # is there anything behind what all keys so far begin with? Half of it, so that we know in a few steps
        cut = position[: (level + seen + 1) // 2] + _END
        if _between(position, cut, until):
            return cut
    for depth in range(level, min(len(position), _DEPTH)):
        found = _cut_at(depth, position, until, alphabet)
        if found is not None:
            return found
    return None


def _cut_at(depth: int, position: str, until: str | None, alphabet: Alphabet) -> str | None:
    here = position[depth]
    steps = [here, *(character for character in alphabet.likely(depth) if character > here)]
    if here > _END:  # there are too many characters to have seen most of them
        steps = [_middle(here, until[depth])] if until and position[:depth] == until[:depth] < until else steps[-1:]
    cuts = [position[:depth] + step + _END for step in steps]
    possible = [cut for cut in cuts if _between(position, cut, until)]
    return possible[(len(possible) - 1) // 2] if possible else None


def _middle(low: str, high: str) -> str:
    middle = chr((ord(low) + ord(high)) // 2)
    return low if "\ud800" <= middle <= "\udfff" else middle  # no key has half a surrogate pair


def _between(position: str, cut: str, until: str | None) -> bool:
    return position < cut and (until is None or cut < until)


def _shared(one: str, other: str) -> int:
    """Count the characters that two keys begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (here, there) in pairs if here != there), min(len(one), len(other)))
