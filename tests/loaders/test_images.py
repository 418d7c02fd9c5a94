import contextlib
import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from loaders.decoding import ImageCrop, center_box, decode_image, decode_npy, random_box
from loaders.decoding import images as images_module
from loaders.decoding import resizing as resizing_module
from loaders.decoding.images import _plain_mode

PNG_MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]


def picture(height: int, width: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """A smooth picture with some noise, as photographs are."""
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(seed).integers(0, 12, (height, width))
    planes = [
        (np.sin(x / width * (9 + band)) * 90 + np.cos(y / height * (7 + band)) * 90 + 128 + noise) for band in range(3)
    ]
    pixels = np.clip(np.stack(planes, axis=2), 0, 255).astype(np.uint8)
    if mode == "I;16":
        return Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, file_format: str, **options: object) -> memoryview:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return memoryview(buffer.getvalue())


def by_pillow(data: memoryview) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert(_plain_mode(image.mode, transparent="transparency" in image.info)))


@given(st.sampled_from(PNG_MODES), st.integers(1, 40), st.integers(1, 40), st.integers(0, 3))
def test_a_png_is_what_pillow_makes_of_it(mode: str, height: int, width: int, seed: int) -> None:
    data = encoded(picture(height, width, mode, seed), "PNG")
    assert np.array_equal(decode_image(data), by_pillow(data))


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_png_with_a_transparent_colour_is_what_pillow_makes_of_it(mode: str) -> None:
    data = encoded(picture(9, 11, mode), "PNG", transparency=0 if mode != "RGB" else (1, 2, 3))
    assert np.array_equal(decode_image(data), by_pillow(data))


@given(
    st.sampled_from(["L", "RGB", "CMYK"]),
    st.integers(1, 60),
    st.integers(1, 60),
    st.sampled_from([40, 75, 95]),
    st.sampled_from([0, 1, 2]),
    st.booleans(),
)
def test_a_jpeg_is_what_pillow_makes_of_it(
    mode: str, height: int, width: int, quality: int, subsampling: int, progressive: bool
) -> None:
    options = {} if mode == "L" else {"subsampling": subsampling}
    data = encoded(picture(height, width, mode), "JPEG", quality=quality, progressive=progressive, **options)
    assert np.array_equal(decode_image(data), by_pillow(data))


@pytest.mark.parametrize("lossless", [True, False])
def test_a_webp_is_decoded(lossless: bool) -> None:
    data = encoded(picture(20, 30), "WEBP", lossless=lossless)
    assert np.array_equal(decode_image(data), by_pillow(data))


@given(st.sampled_from(["PNG", "JPEG", "WEBP"]), st.data())
def test_a_damaged_image_is_an_image_or_an_error(file_format: str, data: st.DataObject) -> None:
    good = bytearray(encoded(picture(24, 31), file_format))
    for _ in range(data.draw(st.integers(0, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    damaged = memoryview(bytes(good[: data.draw(st.integers(0, len(good)))]))
    with contextlib.suppress(OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        decode_image(damaged)


def test_what_a_strict_decoder_refuses_is_decoded_by_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encoded(picture(64, 64), "JPEG")
    cut = memoryview(bytes(whole[:-200]))
    with pytest.raises(OSError, match="truncated"):
        decode_image(cut)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert decode_image(cut).shape == (64, 64, 3)


# --- crops ---


@given(
    st.integers(1, 3000),
    st.integers(1, 3000),
    st.integers(0, 2**64 - 1),
    st.floats(0.01, 1),
    st.floats(1, 4),
)
def test_a_random_box_lies_in_the_image(height: int, width: int, draw: int, least: float, aspect: float) -> None:
    box = random_box(height, width, scale=(least, 1.0), ratio=(1 / aspect, aspect), draw=draw)
    assert box == random_box(height, width, scale=(least, 1.0), ratio=(1 / aspect, aspect), draw=draw)
    assert box.height >= 1
    assert box.width >= 1
    assert 0 <= box.top <= height - box.height
    assert 0 <= box.left <= width - box.width


def test_random_boxes_have_the_areas_and_aspects_that_are_asked_for() -> None:
    boxes = [random_box(1000, 1000, scale=(0.1, 0.5), ratio=(0.5, 2.0), draw=draw) for draw in range(2000)]
    areas = np.array([box.height * box.width for box in boxes]) / 1e6
    aspects = np.array([math.log(box.width / box.height) for box in boxes])
    assert 0.099 < areas.min() < 0.11
    assert 0.49 < areas.max() < 0.501
    assert abs(areas.mean() - 0.3) < 0.01
    assert abs(aspects.mean()) < 0.05
    assert len(set(boxes)) > 1990


@given(st.integers(1, 500), st.integers(1, 500), st.floats(0.2, 5), st.floats(0.1, 1))
def test_a_center_box_lies_in_the_middle(height: int, width: int, aspect: float, share: float) -> None:
    box = center_box(height, width, aspect=aspect, share=share)
    assert 1 <= box.height <= height
    assert 1 <= box.width <= width
    assert abs(height - box.height - 2 * box.top) <= 1
    assert abs(width - box.width - 2 * box.left) <= 1


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
@pytest.mark.parametrize(("height", "width"), [(300, 400), (1500, 900), (40, 30)])
@pytest.mark.parametrize("crop", [ImageCrop((32, 48)), ImageCrop((32, 48), box="center", share=0.875, flip=1.0)])
def test_fast_and_slow_way_agree(
    file_format: str, height: int, width: int, crop: ImageCrop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The filters differ, so single pixels do; what part of the image it is must be the same."""
    data = encoded(picture(height, width), file_format, **({"quality": 95} if file_format == "JPEG" else {}))
    fast = [crop(data, draw).astype(int) for draw in range(8)]
    for module in (images_module, resizing_module):
        monkeypatch.setattr(module, "optional", lambda _: None)
    slow = [crop(data, draw).astype(int) for draw in range(8)]
    for one, other in zip(fast, slow, strict=True):
        assert np.abs(one - other).mean() < 4
        assert np.abs(one - other[:, ::-1]).mean() > np.abs(one - other).mean()


def test_the_crop_is_that_part_of_the_picture() -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[:, 100:] = (255, 0, 0)
    data = encoded(Image.fromarray(pixels), "PNG")
    middle = ImageCrop((10, 20), box="center")(data)
    assert middle[:, :9].max() == 0
    assert (middle[:, 11:] == (255, 0, 0)).all()
    mirrored = ImageCrop((10, 20), box="center", flip=1.0)(data)
    assert np.array_equal(mirrored, middle[:, ::-1])


def test_half_of_the_crops_are_mirrored() -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, :4] = 255
    data = encoded(Image.fromarray(pixels), "PNG")
    crop = ImageCrop((8, 8), box="center", flip=0.5)
    assert crop.draws
    mirrored = sum(crop(data, draw)[0, 0, 0] == 0 for draw in range(400))
    assert 150 < mirrored < 250


def test_it_writes_into_the_batch() -> None:
    batch = np.zeros((3, 16, 16, 3), np.uint8)
    crop = ImageCrop((16, 16))
    data = encoded(picture(50, 50), "JPEG")
    crop.into(data, batch[1], 5)
    assert not batch[0].any()
    assert not batch[2].any()
    assert np.array_equal(batch[1], crop(data, 5))


@pytest.mark.parametrize(
    "options", [{"size": (0, 3)}, {"size": (3, 3), "scale": (1.0, 0.5)}, {"size": (3, 3), "flip": 2.0}]
)
def test_a_crop_that_cannot_be_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"size|scale|flip"):
        ImageCrop(**options)  # type: ignore[arg-type]


# --- arrays ---

DTYPES = [np.uint8, np.int64, np.float32, np.float64, np.complex64, np.bool_, ">u2", "<U3", "S5", "M8[ns]"]


def saved(array: np.ndarray, version: tuple[int, int] | None = None) -> memoryview:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=version)
    return memoryview(buffer.getvalue())


@given(
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 5), max_size=4),
    st.sampled_from("CF"),
    st.sampled_from([None, (1, 0), (2, 0), (3, 0)]),
)
def test_an_array_is_what_numpy_makes_of_it(
    dtype: object, shape: list[int], order: str, version: tuple[int, int] | None
) -> None:
    array = np.arange(math.prod(shape)).astype("i8").reshape(shape).astype(dtype, order=order)  # type: ignore[call-overload]
    found = decode_npy(saved(array, version))
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert found.flags.writeable
    assert np.array_equal(found, array)
    assert found.flags.f_contiguous == array.flags.f_contiguous


@given(st.data())
def test_a_damaged_array_is_an_array_or_a_value_error(data: st.DataObject) -> None:
    good = bytearray(saved(np.arange(12, dtype=np.float32).reshape(3, 4)))
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    damaged = memoryview(bytes(good[: data.draw(st.integers(0, len(good)))]))
    with contextlib.suppress(ValueError):
        decode_npy(damaged)
