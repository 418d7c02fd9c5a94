from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.services.faults import FaultProxy, fault_proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services.weed import S3Server


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[FaultProxy]:
    """What breaks things between a client and the S3 server."""
    with fault_proxy(int(s3.endpoint.rpartition(":")[2])) as running:
        yield running
