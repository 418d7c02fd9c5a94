import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from loaders.decoding import choose_decoders, decode_image, decode_npy


def encoded(image: Image.Image, file_format: str) -> memoryview:
    buffer = io.BytesIO()
    image.save(buffer, file_format)
    return memoryview(buffer.getvalue())


def auto(field: str, data: bytes | memoryview) -> object:
    (decoder,) = choose_decoders("auto", fields=[field])
    return decoder(memoryview(data))


@pytest.mark.parametrize(
    ("mode", "shape", "dtype"),
    [
        ("L", (4, 5), np.uint8),
        ("RGB", (4, 5, 3), np.uint8),
        ("RGBA", (4, 5, 4), np.uint8),
        ("1", (4, 5), np.uint8),
        ("P", (4, 5, 3), np.uint8),
        ("LA", (4, 5, 4), np.uint8),
        ("I;16", (4, 5), np.uint16),
    ],
)
def test_png_becomes_an_array(mode: str, shape: tuple[int, ...], dtype: type) -> None:
    image = auto("png", encoded(Image.new(mode, (5, 4)), "PNG"))
    assert isinstance(image, np.ndarray)
    assert image.shape == shape
    assert image.dtype == dtype
    assert image.flags.writeable


def test_png_keeps_its_pixels() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    assert np.array_equal(decode_image(encoded(Image.fromarray(pixels), "PNG")), pixels)


def test_bitmap_and_palette_become_colours_not_codes() -> None:
    assert decode_image(encoded(Image.new("1", (1, 1), 1), "PNG")).tolist() == [[255]]
    red = Image.new("RGB", (2, 2), (255, 0, 0)).convert("P")
    assert decode_image(encoded(red, "PNG"))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_becomes_an_array(mode: str) -> None:
    image = auto("jpg", encoded(Image.new(mode, (5, 4)), "JPEG"))
    assert isinstance(image, np.ndarray)
    assert image.shape == ((4, 5) if mode == "L" else (4, 5, 3))


def test_small_kinds_decode_by_extension() -> None:
    assert auto("cls", b" 17\n") == 17
    assert auto("txt", "grün".encode()) == "grün"
    assert auto("json", b'{"a": [1, null]}') == {"a": [1, None]}
    assert auto("bin", b"\x00\x01") == b"\x00\x01"
    assert auto("meta.json", b"[]") == []


def test_npy_round_trips_and_refuses_pickles() -> None:
    def saved(array: np.ndarray) -> memoryview:
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=True)
        return memoryview(buffer.getvalue())

    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.array_equal(decode_npy(saved(array)), array)
    with pytest.raises(ValueError, match="allow_pickle"):
        decode_npy(saved(np.array([{}], dtype=object)))


def test_a_mapping_overrides_some_fields() -> None:
    decoders = choose_decoders({"cls": len, "png": None}, fields=["cls", "json", "png"])
    assert decoders[0](memoryview(b"123")) == 3
    assert decoders[1](memoryview(b"123")) == 123
    assert decoders[2](memoryview(b"123")) == b"123"


def test_a_mapping_with_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValueError, match="names field 'pgn', which no sample has; fields: cls, png"):
        choose_decoders({"pgn": len}, fields=["cls", "png"])


def test_no_decoding_gives_bytes() -> None:
    (decoder,) = choose_decoders(None, fields=["png"])
    assert decoder(memoryview(b"abc")) == b"abc"


def test_the_package_imports_neither_torch_nor_pillow() -> None:
    code = "import sys, loaders; print(sorted({'torch', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_without_pillow_the_error_names_the_extra() -> None:
    code = """
import sys
sys.modules["PIL"] = None
from loaders import MissingExtraError
from loaders.decoding import decode_image
try:
    decode_image(memoryview(b""))
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "decoding images needs Pillow: pip install 'forebay[torch]'"
