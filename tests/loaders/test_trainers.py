"""Lightning and Accelerate take a `Loader` as it is, and Lightning's checkpoints hold its place; `make frameworks`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import torch

from loaders.resume import ResumableLoader
from loaders.running import Loader
from loaders.sampler import ElasticBatchSampler
from tests.loaders.running.samples import Numbers, expected

if TYPE_CHECKING:
    from pathlib import Path

    from loaders.running import Mode

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs: of torch's changes, and of few workers
N, BATCH, EPOCHS = 20, 4, 3


def new_loader(mode: Mode = "thread") -> Loader[Any]:
    return Loader(Numbers(N), BATCH, seed=3, mode=mode, workers=2, timeout=60)


def unbroken() -> list[list[str]]:
    sampler = ElasticBatchSampler(Numbers(N), BATCH, seed=3)
    return expected(sampler.batch_at(epoch, step) for epoch in range(EPOCHS) for step in range(len(sampler)))


def fit(loader: Any, *, save_at: int = -1, place: Path | None = None, resume: Path | None = None) -> list[list[str]]:
    """Train with Lightning; the keys of all batches that the model got."""
    lightning: Any = pytest.importorskip("lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    seen: list[list[str]] = []

    class Model(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def training_step(self, batch: Any, _number: int) -> Any:
            seen.append(list(batch["__key__"]))
            return self.layer(batch["x"].float()).sum()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.0)

    class Saving(lightning.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, trainer: Any, *_rest: Any) -> None:
            if trainer.global_step == save_at:
                trainer.save_checkpoint(place)

    trainer = lightning.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        callbacks=[Saving()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Model(), loader, ckpt_path=resume, weights_only=False)
    return seen


@pytest.mark.parametrize("mode", ["sync", "thread", "process"])
def test_lightning_gets_every_batch_of_every_epoch(mode: Mode) -> None:
    loader = new_loader(mode)
    assert fit(loader) == unbroken()
    assert (loader.epoch, loader.step) == (EPOCHS, 0)
    loader.close()


@pytest.mark.parametrize("step", [1, 4, 5, 7])
def test_lightnings_checkpoint_resumes_at_the_next_batch(step: int, tmp_path: Path) -> None:
    fit(new_loader(), save_at=step, place=tmp_path / "saved")
    assert fit(new_loader(), resume=tmp_path / "saved") == unbroken()[step:]


def test_accelerate_passes_a_loader_through() -> None:
    accelerate: Any = pytest.importorskip("accelerate")
    loader = accelerate.Accelerator(cpu=True).prepare(new_loader())
    found = [list(batch["__key__"]) for _ in range(2) for batch in loader]
    assert found == unbroken()[:10]


def test_accelerate_leaves_a_data_loader_and_its_count_whole() -> None:
    accelerate: Any = pytest.importorskip("accelerate")
    sampler = ElasticBatchSampler(Numbers(N), BATCH, seed=3)
    stock: Any = torch.utils.data.DataLoader(Numbers(N), batch_sampler=sampler)  # type: ignore[arg-type]
    loader = ResumableLoader(stock)
    prepared = accelerate.Accelerator(cpu=True).prepare(loader)
    found = [list(batch["__key__"]) for _ in range(2) for batch in prepared]
    assert found == unbroken()[:10]
    assert loader.state_dict()["epoch"] == 2
