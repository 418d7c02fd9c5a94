"""Settings of obstore's clients, the same for every store."""

from __future__ import annotations

import os
from datetime import timedelta
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

_is_child = False
CONNECT_SECONDS = 5
IDLE_SECONDS = 30
"""Without a byte from the server: also what the upload of one part may take, and what is sent beside it."""

REQUEST_SECONDS = 3600
"""Of one whole request, slow but alive; obstore's own limit of 30 s would cut it."""


def client_options(**more: object) -> ClientConfig:
    """Return obstore's `client_options` for every store: our time-outs and user agent, and `more`."""
    return cast(
        "ClientConfig",
        {
            "allow_http": True,
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "read_timeout": timedelta(seconds=IDLE_SECONDS),
            "timeout": timedelta(seconds=REQUEST_SECONDS),
            "user_agent": user_agent(),
            **more,
        },
    )


def once() -> RetryConfig:
    """Return obstore's `retry_config` for every store: each request once, the layer above tries again."""
    return {
        "max_retries": 0,
        "retry_timeout": timedelta(0),
        "backoff": {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=1), "base": 2},
    }


@cache
def user_agent() -> str:
    """Return `forebay/<version>`."""
    try:
        return f"forebay/{installed_version('forebay')}"
    except PackageNotFoundError:  # run from a checkout
        return "forebay"


def is_forked() -> bool:
    """Say whether this process was forked from the one that loaded obstore, whose threads are not in it."""
    return _is_child  # asked twice for each read, so no call to the system


def _after_fork() -> None:
    global _is_child
    _is_child = True


os.register_at_fork(after_in_child=_after_fork)
