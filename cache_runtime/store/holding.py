"""Holding a large object: for whoever reads single ranges of it, where a call costs more than the range."""

from __future__ import annotations


class Holding:
    """A large object whose blocks this process has all checked, marked as read for one generation of evictions.

    Ranges of `view` may be read as long as `words[0] == generation`: something may have been evicted then, and the
    object has to be marked anew, so ask for it again. What was cut of it stays good whatever happens, but should the
    file be found damaged, missing or cut, or the disk fail, `view` is None from then on.

    Attributes:
        view: All of the object.
        words: Of its directory's visited map.
        generation: In which it was marked.
    """

    __slots__ = ("generation", "view", "words")

    def __init__(self, view: memoryview, words: memoryview) -> None:
        self.view: memoryview | None = view
        self.words = words
        self.generation = 0
