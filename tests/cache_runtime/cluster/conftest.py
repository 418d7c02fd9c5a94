from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cache_runtime.cluster import figures
from tests.cache_runtime.cluster.machines import Machines
from tests.cache_runtime.cluster.pool import BUCKET, Pool, upload
from tests.services.netns import Fabric, fabric, missing
from tests.services.requiring import require
from tests.services.weed import S3Server, s3_server

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ("a", "b", "c", "d")


@pytest.fixture(scope="package")
def net() -> Iterator[Fabric]:
    require(missing())
    with fabric() as made:
        made.add(*NAMES)
        yield made


@pytest.fixture(scope="package")
def server(net: Fabric, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3"), buckets=(BUCKET,), host=net.own_address) as running:
        yield running


@pytest.fixture(scope="package")
def shared(net: Fabric, server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    machines = Machines(net, server, tmp_path_factory.mktemp("machines"))
    try:
        machines.start(*NAMES)
        machines.start_trainings(*NAMES)
        yield machines
        machines.check_directories()
    finally:
        machines.close()


@pytest.fixture
def machines(shared: Machines) -> Iterator[Machines]:
    """Four workers with a training each, all well, before and after each test."""
    yield shared
    shared.restore(*NAMES)
    shared.check_live()


@pytest.fixture(scope="package")
def pool(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """Objects of more than a machine has room for, and of half of what three have."""
    return upload(server, tmp_path_factory.mktemp("pools") / "pool", small=100, large=28)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in figures.LINES:
        terminalreporter.write_line(line)
