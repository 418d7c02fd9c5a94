"""Claims about secrets."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING

import pytest

from sources.contract.places import Arranged
from sources.errors import SourceError

if TYPE_CHECKING:
    from sources.contract.places import Place, PutBehind


class SecrecyClaims(Arranged):
    """What the store was opened with shows nowhere."""

    def test_secrets_are_in_no_text(
        self, place: Place, put_behind: PutBehind, secret_values: list[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        """Neither in its id and repr, nor in errors and what caused them, nor in the log at level DEBUG."""
        store, prefix = place
        caplog.set_level(logging.DEBUG)
        put_behind(prefix + "data", b"12345")
        version = store.stat(prefix + "data").version
        texts = [str(store.id), repr(store), repr(list(store.list(prefix)))]
        with pytest.raises(SourceError) as caught:
            store.stat(prefix + "missing")
        texts += [*traceback.format_exception(caught.value), repr(caught.value)]
        for key, length in ((prefix + "missing", 1), (prefix + "data", 9)):
            with pytest.raises(SourceError) as caught:
                store.read(key, start=0, length=length, version=None)
            texts += [*traceback.format_exception(caught.value), repr(caught.value)]
        put_behind(prefix + "data", b"after it changed")
        with pytest.raises(SourceError) as caught:
            store.read(prefix + "data", start=0, length=1, version=version)
        texts += [*traceback.format_exception(caught.value), caplog.text]
        assert "@" not in store.id
        assert not [text for text in texts for secret in secret_values if secret in text]
