from __future__ import annotations

import string
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources import SourceConfigError
from sources.http.answers import Answer, retry_after
from sources.http.index import names_in

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60.0),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0.0),
        ("x", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


@given(
    st.dictionaries(
        st.sampled_from(["ETag", "Last-Modified", "Content-Range", "Content-Length", "Retry-After"]), st.text()
    )
)
def test_any_headers_make_an_answer(headers: dict[str, str]) -> None:
    for status in (200, 206, 416):
        Answer.of(status, headers)
    retry_after(headers.get("Retry-After"), NOW)


def test_a_zone_beyond_all_bounds_is_no_time() -> None:
    answer = Answer.of(200, {"Last-Modified": "Thu, 01 Jan 2026 00:01:00 +9999999999999999", "Content-Length": "1"})
    assert answer.version is None


@pytest.mark.parametrize("total", ["9223372036854775808", "9" * 5000])
def test_a_size_that_no_listing_can_hold_is_none(total: str) -> None:
    assert Answer.of(206, {"Content-Range": f"bytes 0-0/{total}"}).size is None


@given(st.text(alphabet=string.printable + "äø"))
def test_any_page_is_an_index_or_refused(page: str) -> None:
    try:
        names = names_in(f'<a href="{page}">{page}', "http://host/directory/")
    except SourceConfigError:
        return
    assert all(name.strip("/") not in ("", ".", "..") and "/" not in name[:-1] for name in names)


@pytest.mark.parametrize("link", ["%2e%2e", "%2e%2e/", "a%2Fb", "a%2F", "a%00b", "%FF"])
def test_a_name_that_leads_elsewhere_is_refused(link: str) -> None:
    with pytest.raises(SourceConfigError, match="rename it"):
        names_in(f'<a href="{link}">', "http://host/directory/")
