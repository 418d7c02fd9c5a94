from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.ds.conftest import World


def test_an_epoch_is_planned_by_the_real_order(world: World) -> None:
    world.committed()
    picture = world.directory / "epoch.svg"
    said = world.ok("plan", "pets@main", "-b", "4", "-w", "2", "--classes-by-directory", "--plot", str(picture))
    lines = said.out.splitlines()
    assert lines[0] == "12 samples in 12 shards, 3 steps, order full"
    assert lines[1].split() == ["EACH", "SHARDS", "READS", "USES", "IN", "USE", "MEAN", "NEW", "CACHE", "FIRST", "STEP"]
    assert [line.partition(",")[0] for line in lines[2:4]] == ["rank", "node"]
    assert picture.read_text().startswith("<svg")
    numbers = world.ok("plan", "-b", "4", "-w", "2", "--json").data
    assert (numbers["samples"], numbers["steps"], numbers["classes_mean"]) == (12, 3, None)


def test_a_packed_version_is_one_shard(world: World) -> None:
    world.committed()
    world.ok("pack")
    numbers = world.ok("plan", "-b", "4", "--order", "stream", "--json").data
    assert numbers["shards"] == 1
    assert numbers["order"] == {"order": "stream", "lanes": 1, "window": 8}


def test_numbers_that_do_not_fit_are_a_wrong_usage(world: World) -> None:
    world.committed()
    said = world.ds("plan", "-b", "4", "-w", "3")
    assert said.code == 2
    assert "cannot be shared equally by 3 ranks" in said.err
    assert world.ds("plan", "--order", "random").code == 2
