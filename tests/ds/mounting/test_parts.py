"""What the processes of a mount decide, without a mount."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds.mounting.fstab import plan_call
from ds.mounting.metrics import prometheus_text
from ds.mounting.plans import MountPlan
from ds.mounting.restarts import Restarts


@given(st.lists(st.floats(0.01, 1000), max_size=60))
def test_a_server_that_dies_again_and_again_is_given_up_and_one_that_lived_long_is_not(pauses: list[float]) -> None:
    restarts, now, deaths = Restarts(deaths=5, within_seconds=100), 0.0, list[float]()
    for pause in pauses:
        now += pause
        deaths.append(now)
        recent = [death for death in deaths if now - death <= 100]
        delay = restarts.delay_after(now)
        assert (delay is None) == (len(recent) >= 5)
        assert delay is None or 0 < delay <= 10


def test_a_plan_survives_its_way_to_another_process() -> None:
    plan = MountPlan("/mnt/a b", "pets", "topic/x", "c" * 64, "images", "/home", branch="topic/x", uid=7)
    assert MountPlan.decode(plan.encode()) == plan
    assert plan.source == "pets@topic%2Fx/images"
    later = plan.encode().replace('{"mount_point"', '{"unknown": 1, "mount_point"')
    assert MountPlan.decode(later) == plan


def test_a_call_of_the_helper_becomes_a_command() -> None:
    words = ["pets@v1/images", "/mnt/p", "-s", "-n", "-o", "ro,uid=5,allow_other,home=/h,env=AWS_REGION:eu,x-a=b"]
    command, environment = plan_call(words)
    options = ["--background", "--repair", "pets@v1/images", "/mnt/p"]
    assert command == ["mount", "--uid", "5", "--allow-other", *options]
    assert environment == {"FOREBAY_HOME": "/h", "AWS_REGION": "eu"}
    for wrong in (["pets"], ["pets", "/mnt", "-o", "colour=red"], []):
        with pytest.raises(ValueError, match=r"expected|not known"):
            plan_call(wrong)


def test_metrics_are_text_that_prometheus_reads() -> None:
    from prometheus_client.parser import text_string_to_metric_families

    status = {
        "mountpoint": 'a "b"\\c',
        "commit": "abc",
        "files": 3,
        "passthrough": True,
        "errors": 1,
        "operations": {"read": {"requests": 2, "seconds": 0.5}},
        "reading": {
            "opens_cached": 4,
            "open_handles": 1,
            "waits": [1, 2, 3],
            "waits_bounds_ms": [1, 5],
            "waited_seconds": 2,
        },
    }
    found = {family.name: family for family in text_string_to_metric_families(prometheus_text(status))}
    assert found["forebay_mount_files"].samples[0].labels == {"mountpoint": 'a "b"\\c'}
    assert found["forebay_mount_requests"].samples[0].value == 2
    assert found["forebay_mount_reading_opens_cached"].type == "counter"
    assert found["forebay_mount_reading_open_handles"].type == "gauge"
    buckets = [sample.value for sample in found["forebay_mount_read_wait_seconds"].samples]
    assert buckets == [1, 3, 6, 2, 6]
