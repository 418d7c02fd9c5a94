"""Heads of HTTP answers."""

from __future__ import annotations

import pytest

from sources.s3.heads import Head


@pytest.mark.parametrize(
    ("protocol", "connection", "keeps"),
    [
        ("HTTP/1.1", None, True),
        ("HTTP/1.1", "keep-alive", True),
        ("HTTP/1.1", "close", False),
        ("HTTP/1.1", "Keep-Alive, Close", False),
        ("HTTP/1.1", "x-close", True),
        ("HTTP/1.0", "keep-alive", False),
    ],
)
def test_a_connection_is_kept_unless_one_of_its_options_says_otherwise(
    protocol: str, connection: str | None, keeps: bool
) -> None:
    fields = {} if connection is None else {"connection": connection}
    assert Head(protocol, 200, fields).keeps is keeps
