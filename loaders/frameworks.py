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

    The first batch tells kinds and shapes; it is read when this is called. A loader with a state is put back to where
    it was then; from anything else it is delivered as the first batch of the first iteration. How many samples a batch
    has may vary. A `tf.data` pipeline takes batches before the loop sees them (the more, the more it prefetches), so a
    state saved meanwhile is ahead of the loop by as many.

    Raises:
        MissingExtraError: If TensorFlow is not installed.
        ValueError: If there is no batch.
    """
    tf = required("tensorflow", what="to_tf", package="TensorFlow", extra="tf")
    first, source = _looked_at(batches)
    arrays = _mapped(first, np.asarray, text=True)
    signature = _mapped(arrays, lambda one: _spec(tf, one), text=True)

    def generate() -> Iterator[Any]:
        for batch in source:
            yield _mapped(batch, np.asarray, text=True)

    return tf.data.Dataset.from_generator(generate, output_signature=signature)


def _looked_at(batches: Iterable[Any]) -> tuple[Any, Iterable[Any]]:
    """Return the first batch, and what yields all batches, this one too.

    A loader with a state is put back and iterated anew: where the loop resumes it meanwhile, a batch that was kept
    would be one of another place.

    Raises:
        ValueError: If there is no batch.
    """
    state = batches.state_dict() if hasattr(batches, "load_state_dict") and hasattr(batches, "state_dict") else None
    begun = iter(batches)
    first = list(islice(begun, 1))
    if not first:
        raise ValueError("there is no batch, so nothing tells what one looks like; check the data set and drop_last")
    if state is None:
        return first[0], _Begun(first, begun, batches)
    batches.load_state_dict(state)  # type: ignore[attr-defined]  # was looked for
    return first[0], batches


class _Begun:
    """Batches of which an iteration has begun: the first iteration of this one goes on with it."""

    def __init__(self, first: list[Any], begun: Iterator[Any], batches: Iterable[Any]) -> None:
        self._first = first
        self._begun: Iterator[Any] | None = begun
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:
        begun, self._begun = self._begun, None
        if begun is None:
            yield from self._batches
        else:
            yield self._first.pop()
            yield from begun


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
