"""What a test does that needs a service which is not there."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def require(reason: str | None) -> None:
    """Skip the test, loudly, if a service is missing; fail where the environment says FOREBAY_REQUIRE_SERVICES=1.

    Args:
        reason: What is missing, as `Service.missing` tells; None is fine.
    """
    if reason is not None:
        skip_or_fail(reason)


def skip_or_fail(reason: str) -> NoReturn:
    """See `require`."""
    text = f"NOT TESTED: {reason}; as root: python -m tests.services.install"
    if _REQUIRED:
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


_REQUIRED = os.environ.get("FOREBAY_REQUIRE_SERVICES") == "1"  # read here: tests clear FOREBAY_* around themselves
