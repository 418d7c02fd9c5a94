"""Where the claims are tested, and how the objects get there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sources.stores import Store

Place = tuple[Store, str]
"""A store and the key prefix, ending in "/", below which the test may do as it likes; nothing is there yet."""

PutBehind = Callable[[str, bytes], None]
"""Write one object, given its key, or replace it."""

DeleteBehind = Callable[[str], None]
"""Delete one object."""


class Arranged:
    """Fixtures of the claims. `place` is to be given; a store that cannot write needs the two `_behind` too."""

    @pytest.fixture
    def place(self) -> Place:
        """Give the store and where to test."""
        raise NotImplementedError("the class that is tested gives a fixture `place`; see sources.contract")

    @pytest.fixture
    def put_behind(self, place: Place) -> PutBehind:
        """Write an object before a claim about reading: through the store itself, or behind its back."""
        return place[0].put

    @pytest.fixture
    def delete_behind(self, place: Place) -> DeleteBehind:
        """Delete an object before a claim about reading."""
        return place[0].delete

    @pytest.fixture
    def secret_values(self) -> list[str]:
        """Give the secrets that the store was opened with: no text may show them."""
        return []
