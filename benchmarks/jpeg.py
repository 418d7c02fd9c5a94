"""Processor time of a JPEG on its way from storage into a batch: decoded, cut out at random, resized to 224 x 224.

    .bench-venv/bin/python -m benchmarks.jpeg
    .bench-venv/bin/python -m benchmarks.jpeg --only forebay-loader,files-pillow --rounds 3

Data: 2,000 pictures of 500 x 375, quality 90, about 80 KB each, warm in the page cache; batches of 64, two workers (or
threads). Each measurement is one epoch in a fresh process, after one that is not timed; rounds are interleaved.
CPU time is user + system of the process and its workers. What is not like for like:

- `pillow` rows decode whole pictures and resize with Pillow's filter, `same` rows use Forebay's `ImageCrop` in the
  peer's loader: libjpeg-turbo at a half or less of the size where that is enough, and cv2's bilinear filter.
- All take the same boxes; the mirroring is left out.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.rounds import chosen as choose
from benchmarks.rounds import machine, parser, shown, spread, table, take_turns, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable

SIZE = 224
BATCH = 64
WORKERS = 2
PICTURES = 2000
SECONDS = 900
CONTESTANTS = ["forebay-loader", "forebay-torch", "files-same", "files-pillow", "litdata-same", "litdata-pillow"]


def make_pictures(directory: Path, count: int) -> None:
    from PIL import Image

    rng = np.random.default_rng(1)
    y, x = np.mgrid[0:375, 0:500]
    directory.mkdir(parents=True)
    for number in range(count):
        planes = [np.sin(x / rng.uniform(8, 60)) * 80 + np.cos(y / rng.uniform(8, 60)) * 80 + 128 for _ in range(3)]
        pixels = np.stack(planes, axis=2) + rng.integers(-25, 25, (375, 500, 3))
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(directory / f"{number:05}.jpg", quality=90)


# --- what each delivers: arrays of BATCH x 224 x 224 x 3


def by_pillow(data: bytes, number: int) -> np.ndarray[Any, Any]:
    from PIL import Image

    from loaders.decoding import random_box

    with Image.open(io.BytesIO(data)) as image:
        box = random_box(image.height, image.width, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), draw=number)
        edges = (box.left, box.top, box.left + box.width, box.top + box.height)
        small = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=edges)
        return np.array(small)


def by_crop(data: bytes, number: int) -> np.ndarray[Any, Any]:
    from loaders.decoding import ImageCrop

    return ImageCrop((SIZE, SIZE))(memoryview(data), number)


DECODERS = {"pillow": by_pillow, "same": by_crop}


class Files:
    def __init__(self, directory: Path, decoder: str) -> None:
        self.paths = sorted(map(str, directory.glob("*.jpg")))
        self.decode = DECODERS[decoder]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
        return self.decode(Path(self.paths[index]).read_bytes(), index)


def files(data: Path, decoder: str) -> Iterable[Any]:
    from torch.utils.data import DataLoader

    dataset: Any = Files(data / "files", decoder)
    return DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=WORKERS)


def forebay_dataset(data: Path) -> Any:
    from benchmarks.epoch_loaders import forebay_client
    from loaders import ShardDataset
    from loaders.decoding import ImageCrop
    from sources import FileStore
    from versioning import Repository

    repository = Repository.open(FileStore(data), f"{str(data)[1:]}/forebay/")
    return ShardDataset.from_tree(
        repository.tree("main"),
        repository.root,
        forebay_client(data, cached=True),
        decode={"jpg": ImageCrop((SIZE, SIZE))},
    )


def pictures_only(samples: list[dict[str, Any]]) -> Any:
    import torch

    return torch.from_numpy(np.stack([sample["jpg"] for sample in samples]))


def forebay(data: Path, face: str) -> Iterable[Any]:
    from torch.utils.data import DataLoader

    from loaders import ElasticBatchSampler
    from loaders.running import Loader

    dataset = forebay_dataset(data)
    if face == "loader":
        return Loader(dataset, BATCH, workers=WORKERS, mode="thread", seed=7)
    sampler = ElasticBatchSampler(dataset, BATCH, seed=7)
    return DataLoader(dataset, batch_sampler=sampler, num_workers=WORKERS, collate_fn=pictures_only)


class LitPictures:
    """What `litdata.StreamingDataset` would be subclassed for: its samples, decoded."""

    def __init__(self, decoder: str) -> None:
        self.decode = DECODERS[decoder]

    def __call__(self, sample: dict[str, Any]) -> np.ndarray[Any, Any]:
        return self.decode(sample["jpg"], sample["number"])


def litdata_record(path: str) -> dict[str, Any]:
    return {"jpg": Path(path).read_bytes(), "number": int(Path(path).stem)}


def litdata(data: Path, decoder: str) -> Iterable[Any]:
    import litdata as library

    dataset = library.StreamingDataset(str(data / "litdata"), shuffle=True, transform=LitPictures(decoder))
    loader: Iterable[Any] = library.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=WORKERS, shuffle=True)
    return loader


WAYS = {"forebay": forebay, "files": files, "litdata": litdata}


def prepare(data: Path, names: list[str]) -> None:
    kinds = {name.partition("-")[0] for name in names}
    if "forebay" in kinds:
        from argparse import Namespace

        from benchmarks.epoch_loaders import prepare_forebay

        prepare_forebay(data, Namespace())
    if "litdata" in kinds:
        import litdata as library

        paths = sorted(map(str, (data / "files").glob("*.jpg")))
        library.optimize(litdata_record, paths, str(data / "litdata"), chunk_bytes="64MB", num_workers=1)


def child(name: str, data: Path) -> dict[str, float]:
    """Time the second of two epochs in this process."""
    kind, _, how = name.partition("-")
    batches = WAYS[kind](data, how)
    for _batch in batches:
        pass
    begun, used = time.perf_counter(), sum(os.times()[:4])
    pictures = sum(len(batch["jpg"] if isinstance(batch, dict) else batch) for batch in batches)
    wall = time.perf_counter() - begun
    return {"cpu_ms": (sum(os.times()[:4]) - used) / pictures * 1e3, "wall_ms": wall / pictures * 1e3}


def run(name: str, data: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.jpeg", "--child", name, "--directory", str(data)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _again(name: str, data: Path, _round: int) -> dict[str, float]:
    return run(name, data)


def main() -> None:
    options_parser = parser(__doc__, rounds=5)
    options_parser.add_argument("--child", help="internal: run one contestant and print what it cost")
    options = options_parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child, options.directory)))
        return
    names = choose(options, CONTESTANTS)
    with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
        data = Path(scratch)
        make_pictures(data / "files", max(4 * BATCH, int(PICTURES * options.scale)))
        prepare(data, names)
        found = take_turns({name: partial(_again, name, data) for name in names}, options.rounds)
    rows = {
        name: {kind: spread([one[kind] for one in runs]) for kind in ("cpu_ms", "wall_ms")}
        for name, runs in found.items()
    }
    first = rows[names[0]]
    print(machine())
    print(
        table(
            ["loader", "CPU ms a picture", "wall ms a picture", f"CPU / {names[0]}"],
            [
                [
                    name,
                    shown(row["cpu_ms"]),
                    shown(row["wall_ms"]),
                    f"{row['cpu_ms']['median'] / first['cpu_ms']['median']:.2f}",
                ]
                for name, row in rows.items()
            ],
        )
    )
    write_json(options.json, rows)


if __name__ == "__main__":
    main()
