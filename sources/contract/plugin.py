"""Pytest's way to the contract: `pytest --forebay-store=URI` tests any store, with no code.

    pytest --forebay-store=s3://bucket/scratch/ --forebay-option endpoint_url=http://127.0.0.1:9000 --forebay-swap
    pytest --forebay-store=https://host/dir/ --forebay-behind=file:///srv/www/dir/

The store is found as `open_store` finds it, third parties' entry points included. Each test works below a prefix of its
own and deletes what it wrote. With other arguments, pytest runs those and not the suite.

Loaded by pytest on every start where Forebay is installed: it imports nothing until it is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _pytest.config.argparsing import Parser

_CLAIMS = ("listing", "reading", "secrecy", "suite", "swapping", "travelling", "writing")
pytest.register_assert_rewrite(*(f"sources.contract.{name}" for name in _CLAIMS))


def pytest_addoption(parser: Parser) -> None:
    """Add our options."""
    group = parser.getgroup("forebay", "the contract of Forebay's stores")
    group.addoption(
        "--forebay-store", metavar="URI", help="test the store of this URI, below a prefix of the tests' own"
    )
    group.addoption(
        "--forebay-option",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="open it with this option, JSON where it reads as JSON; may be repeated",
    )
    group.addoption(
        "--forebay-swap", action="store_true", help="it must be able to hold a repository (compare-and-swap)"
    )
    group.addoption(
        "--forebay-behind",
        metavar="URI",
        help="it cannot write: arrange the objects through this other store, where they lie at the same names",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Run the suite if a store is named and no tests are."""
    if not config.getoption("forebay_store") or config.args_source is pytest.Config.ArgsSource.ARGS:
        return
    if config.getoption("forebay_behind"):
        kind = "TestReadOnlyStore"
    else:
        kind = "TestSwapStore" if config.getoption("forebay_swap") else "TestStore"
    config.args[:] = [f"{Path(__file__).with_name('suite.py')}::{kind}"]
