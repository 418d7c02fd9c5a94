"""Sound files."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from loaders.decoding.optional import required

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def decode_sound(data: memoryview) -> tuple[npt.NDArray[np.float32], int]:
    """Decode WAV, FLAC, Ogg and what else libsndfile knows.

    Returns:
        Samples in [-1, 1], float32 of shape (frames, channels), and the sample rate in Hz.

    Raises:
        MissingExtraError: If soundfile is not installed.
    """
    soundfile: Any = required("soundfile", what="decoding sound", package="soundfile", extra="audio")
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return samples, rate
