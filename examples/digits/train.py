"""Train a small network on a version of the digits, and say where its bytes came from.

python examples/digits/train.py main
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

import ds
from examples.digits.digits import is_test
from loaders import ElasticBatchSampler, ShardDataset, StallMeter

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH = 64
EPOCHS = 3


@dataclass(frozen=True)
class Result:
    """What a training run did: accuracy on the test samples (0 to 1) and bytes read, by where from."""

    accuracy: float
    local_bytes: int
    peer_bytes: int
    origin_bytes: int


def train(revision: str, *, seed: int = 7, count_requests: Callable[[], int] = lambda: 0) -> Result:
    torch.manual_seed(seed)
    digits = ds.Dataset("digits")
    training = digits.shards(revision, where=lambda key: not is_test(key), transform=to_example)
    testing = digits.shards(revision, where=is_test, transform=to_example)
    sampler = ElasticBatchSampler(training, BATCH, seed=seed)
    loader = DataLoader(training, batch_sampler=sampler)  # a stock DataLoader
    model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    print(f"{len(training):,} training samples, {len(testing):,} test samples; global batch {BATCH}")
    columns = ("epoch", "loss", "samples/s", "stall", "cache", "peer", "origin", "S3 requests")
    print("{:>5} {:>6} {:>10} {:>6} {:>10} {:>6} {:>7} {:>12}".format(*columns))
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        before, asked = training.stats(), count_requests()
        meter = StallMeter(loader)
        for pixels, label in meter:
            loss = torch.nn.functional.cross_entropy(model(pixels), label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        read = training.stats() - before
        report = meter.report()
        print(
            f"{epoch:>5} {loss.item():>6.3f} {report.samples_per_second:>10,.0f} {report.stall_percent:>5.0f}% "
            f"{read.bytes_local:>8,} B {read.bytes_peer:>4} B {read.bytes_origin:>5} B "
            f"{count_requests() - asked:>12}"
        )
    accuracy = evaluate(model, testing)
    print(f"test accuracy {accuracy:.1%}")
    total = digits.client.stats.snapshot()
    return Result(accuracy, total.bytes_local, total.bytes_peer, total.bytes_origin)


def to_example(sample: dict[str, Any]) -> tuple[torch.Tensor, int]:
    """Turn a decoded sample, {"png": 8 x 8 uint8, "json": {...}}, into pixels in [0, 1] and a class."""
    return torch.tensor(sample["png"], dtype=torch.float32).flatten() / 255, sample["json"]["label"]


def evaluate(model: torch.nn.Module, testing: ShardDataset) -> float:
    right = 0
    with torch.no_grad():
        for pixels, label in DataLoader(testing, batch_size=256):
            right += int((model(pixels).argmax(1) == label).sum())
    return right / len(testing)


if __name__ == "__main__":
    train(sys.argv[1] if len(sys.argv) > 1 else "main")
