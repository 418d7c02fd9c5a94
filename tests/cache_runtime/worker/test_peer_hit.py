from __future__ import annotations

from benchmarks import peer_hit
from tests.services import http
from tests.services.requiring import require


def test_the_benchmark_of_peer_hits_runs() -> None:
    require(http.missing())
    result = peer_hit.run(objects=1, requests=8, small=70, batches=1, rounds=2)
    assert set(result["peer_hit"]) == {1, 8}
    assert result["batch"]["milliseconds"]["batch"]["median"] > 0
