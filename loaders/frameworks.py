"""The same batches for jax, TensorFlow and Paddle; torch takes them as they are.

All take any iterable of batches: a `Loader`, a torch DataLoader, a list. What a batch holds besides arrays of numbers
(keys, text) stays as it is, except that TensorFlow has strings. Grain needs none of this: a `ShardDataset` is one of
its random-access sources.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from loaders.decoding.optional import required

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_NUMBERS = "biufc"


def to_jax(batches: Iterable[Any], *, sharding: Any = None) -> Iterator[Any]:
    """Yield each batch with jax arrays for its arrays of numbers.

    The copy to a device is not waited for, so it goes on while the previous step computes; no batch is taken early,
    so a saved state of the loader counts what the loop has seen.

    Args:
        batches: Of this process's share.
        sharding: A `jax.sharding.Sharding` of the *global* batch, of which this process gives its part; None: the
            default device.

    Raises:
        MissingExtraError: If jax is not installed.
    """
    jax = required("jax", what="to_jax", package="jax", extra="jax")

    def convert(array: np.ndarray[Any, Any]) -> Any:
        return jax.device_put(array) if sharding is None else jax.make_array_from_process_local_data(sharding, array)

    return (_mapped(batch, convert) for batch in batches)


def to_paddle(batches: Iterable[Any]) -> Iterator[Any]:
    """Yield each batch with Paddle tensors for its arrays of numbers.

    Raises:
        MissingExtraError: If Paddle is not installed.
    """
    paddle = required("paddle", what="to_paddle", package="Paddle", extra="paddle")
    return (_mapped(batch, paddle.to_tensor) for batch in batches)


def to_tf(batches: Iterable[Any]) -> Any:
    """Return a `tf.data.Dataset` of the batches; each iteration of it iterates `batches` once.

    The first batch tells kinds and shapes; it is read when this is called and delivered as the first of the first
    iteration. How many samples a batch has may vary. A `tf.data` pipeline takes batches before the loop sees them (the
    more, the more it prefetches), so a state saved meanwhile is ahead of the loop by as many.

    Raises:
        MissingExtraError: If TensorFlow is not installed.
        ValueError: If there is no batch.
    """
    tf = required("tensorflow", what="to_tf", package="TensorFlow", extra="tf")
    source: Iterator[Any] | None = iter(batches)
    assert source is not None
    first = [_mapped(batch, np.asarray, text=True) for batch in islice(source, 1)]
    if not first:
        raise ValueError("there is no batch, so nothing tells what one looks like; check the data set and drop_last")

    def generate() -> Iterator[Any]:
        nonlocal source
        begun, source = source, None
        if begun is not None:
            yield first.pop()
        for batch in batches if begun is None else begun:
            yield _mapped(batch, np.asarray, text=True)

    signature = _mapped(first[0], lambda one: _spec(tf, one), text=True)
    return tf.data.Dataset.from_generator(generate, output_signature=signature)


def _spec(tf: Any, array: np.ndarray[Any, Any]) -> Any:
    kind = tf.string if array.dtype.kind in "OUS" else tf.as_dtype(array.dtype)
    return tf.TensorSpec((None, *array.shape[1:]) if array.ndim else (), kind)


def _mapped(value: Any, convert: Callable[[Any], Any], *, text: bool = False) -> Any:
    """Convert the arrays in a tree of dictionaries, lists and tuples.

    `text`: for TensorFlow, which has strings, and to which a list is no structure but one array.
    """
    if isinstance(value, dict):
        return {key: _mapped(each, convert, text=text) for key, each in value.items()}
    if isinstance(value, np.ndarray) or hasattr(value, "__array__"):
        array = np.asarray(value)
        return convert(array) if text or array.dtype.kind in _NUMBERS else value
    if text and _is_text(value):
        return np.asarray(value, dtype=object)
    if isinstance(value, list | tuple):
        parts = [_mapped(each, convert, text=text) for each in value]
        if hasattr(value, "_fields"):
            return type(value)(*parts)
        return tuple(parts) if text else type(value)(parts)
    return convert(np.asarray(value)) if isinstance(value, int | float | complex) else value


def _is_text(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(each, str | bytes) for each in value)
    return isinstance(value, str | bytes)
