"""The data of the demonstration: scikit-learn's handwritten digits as small files."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from sources import open_store

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TEST_SHARE = 6  # every sixth image is for testing


def is_test(key: str) -> bool:
    """Tell test samples by their key; what is made from an image (0042-r15) goes with it."""
    return int(key.partition("-")[0]) % TEST_SHARE == 0


def put_digits(uri: str, options: Mapping[str, object], labels: Path) -> int:
    """Put 1,797 images under `<uri>/<label>/<id>.png` and a JSON file each under `labels`; return how many."""
    digits = load_digits()
    store = open_store(uri, options)
    prefix = uri.split("/", 3)[3]
    labels.mkdir(parents=True)

    def put(number: int) -> None:
        label = int(digits.target[number])
        store.put(f"{prefix}/{label}/{number:04}.png", _png(digits.images[number]))
        (labels / f"{number:04}.json").write_text(json.dumps(_facts(digits.images[number], label)))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(put, range(len(digits.target))))
    return len(digits.target)


def write_rotated(directory: Path, count: int) -> None:
    """Write the first `count` training images, turned by 15 degrees, with their labels, as local files."""
    digits = load_digits()
    numbers = [number for number in range(len(digits.target)) if not is_test(str(number))][:count]
    for number in numbers:
        label = int(digits.target[number])
        pixels = np.asarray(Image.fromarray(_bytes(digits.images[number])).rotate(15, Image.Resampling.BICUBIC))
        image = directory / "images" / str(label) / f"{number:04}-r15.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(_png(pixels / 16))
        facts = directory / "labels" / f"{number:04}-r15.json"
        facts.parent.mkdir(parents=True, exist_ok=True)
        facts.write_text(json.dumps(_facts(pixels / 16, label)))


def _facts(image: np.ndarray, label: int) -> dict[str, float | int]:
    """Describe an image by what does not depend on who wrote it: its class, amount of ink and centre of mass."""
    ink = float(image.sum())
    rows, columns = np.indices(image.shape)
    return {
        "label": label,
        "ink": round(ink, 2),
        "center_row": round(float((rows * image).sum() / ink), 3),
        "center_column": round(float((columns * image).sum() / ink), 3),
    }


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(_bytes(image)).save(buffer, "PNG")
    return buffer.getvalue()


def _bytes(image: np.ndarray) -> np.ndarray:
    """Stretch 0..16 to 0..255."""
    return np.clip(image * 16, 0, 255).astype(np.uint8)
