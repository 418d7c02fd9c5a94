from __future__ import annotations

import os
import signal
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from tests.services.disks import mounted
from tests.services.weed import S3Server, s3_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUCKET = "forebay-tests"
_NUMBERS = count()

# How long an example takes says more about what else runs on the machine than about the code.
# Examples are the same in every run, so that CI tells about the change; the deep profile looks for new ones.
settings.register_profile(
    "forebay",
    deadline=None,
    derandomize=not os.environ.get("FOREBAY_DEEP"),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("forebay")


def pytest_configure() -> None:
    """A shell's background job inherits Ctrl-C as ignored, and so would all that the tests start and interrupt."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    from tests.spreading import ByFile

    config.option.loadscopereorder = False
    return ByFile(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # a process of `-n`
        from tests.spreading import longest_first

        longest_first(items)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server with the bucket `BUCKET`, one for the whole run."""
    with s3_server(tmp_path_factory.mktemp("s3"), buckets=(BUCKET, "raw")) as server:
        yield server


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=4m", "tmpfs") as disk:
        yield disk


@pytest.fixture(autouse=True)
def signals_are_given_back() -> Iterator[None]:
    """A test, or what it calls, that takes SIGINT or SIGTERM must not keep them."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.fixture(autouse=True)
def no_credentials_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests see neither the user's cloud credentials nor their Forebay home."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "FOREBAY_")):
            monkeypatch.delenv(name)
    empty = tmp_path_factory.getbasetemp() / "homes" / f"{next(_NUMBERS)}"  # made by who writes there
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(empty / "aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(empty / "aws-credentials"))
    monkeypatch.setenv("FOREBAY_HOME", str(empty / "forebay"))
