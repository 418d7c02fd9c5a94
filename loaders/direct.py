"""Samples whose bytes are at hand, in as few steps as Python can take: each costs as much as copying a kilobyte."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loaders.keytext import key_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache_runtime import Client
    from cache_runtime.store.holding import Holding
    from loaders.decoding import Decoder
    from loaders.samples import SampleIndex

_MAX_HELD = 1 << 16  # objects: some 10 MB


class DirectReader:
    """Reads samples where all of them have all fields, and the objects that they lie in are mapped and checked.

    Without arrays and ranges, which cost more than the bytes.

    Args:
        samples: Which, and where they lie.
        client: Reads through its store.
        decoders: Of each field of the samples.
    """

    __slots__ = ("_bound", "_held", "_made_of")

    def __init__(self, samples: SampleIndex, client: Client, decoders: Sequence[Decoder]) -> None:
        self._made_of = (samples, client, decoders)
        self._bound: tuple[Any, ...] | None = None
        self._held: dict[int, Holding] = {}

    def __reduce__(self) -> tuple[object, ...]:
        return DirectReader, self._made_of

    def read(self, number: int) -> dict[str, Any] | None:
        """Return one decoded sample; None if it is not to be had this way.

        Args:
            number: In [0, n).

        Raises:
            Exception: Of a decoder.
        """
        each, fields, objects, offsets, lengths, begins, text, stats = self._bound or self._bind()
        member = number * each
        whole: Any = None
        at, size = -1, 0
        sample: dict[str, Any] = {"__key__": text[begins[number] : begins[number + 1]]}
        for name, decoder in fields:
            if (where := objects[member]) != at:
                holding = self._held.get(where)
                if holding is None or holding.words[0] != holding.generation:
                    holding = self._hold(where)
                if holding is None or (whole := holding.view) is None:
                    self._held.pop(where, None)
                    return None
                at, most = where, len(whole)
            start = offsets[member]
            end = start + lengths[member]
            if end > most:
                return None
            sample[name] = decoder(whole[start:end])
            size += end - start
            member += 1
        if not size:
            return None  # also where the samples differ in their fields
        stats.reads_local += each
        stats.bytes_local += size
        return sample

    def read_many(self, numbers: Sequence[int]) -> list[dict[str, Any]] | None:
        """Return some decoded samples, in the order asked for; None if one of them is not to be had this way.

        Args:
            numbers: In [0, n).

        Raises:
            Exception: Of a decoder.
        """
        each, fields, objects, offsets, lengths, begins, text, stats = self._bound or self._bind()
        samples, client, _ = self._made_of
        whole_of, ref_of = client.store.whole, samples.objects.ref  # type: ignore[union-attr] # it has one
        wholes: dict[int, memoryview | None] = {}
        data: list[memoryview] = []
        append = data.append
        whole: Any = None
        at, size = -1, 0
        for number in numbers:
            first = number * each
            for member in range(first, first + each):
                if (where := objects[member]) != at:
                    if where not in wholes:
                        wholes[where] = whole_of(ref_of(where))
                    if (whole := wholes[where]) is None:
                        return None
                    at = where
                start, length = offsets[member], lengths[member]
                append(whole[start : start + length])
                size += length
        if not size or sum(map(len, data)) != size:  # a range is not inside of its object: told elsewhere
            return None
        keys = [text[begins[number] : begins[number + 1]] for number in numbers]
        columns = [map(decoder, data[place::each]) for place, (_, decoder) in enumerate(fields)]
        found = _rows(keys, [name for name, _ in fields], columns)
        stats.reads_local += len(data)
        stats.bytes_local += size
        return found

    def _hold(self, where: int) -> Holding | None:
        samples, client, _ = self._made_of
        assert client.store is not None
        if len(self._held) >= _MAX_HELD:
            self._held = {}
        holding = client.store.hold(samples.objects.ref(where))
        if holding is not None:
            self._held[where] = holding
        return holding

    def _bind(self) -> tuple[Any, ...]:
        """Look up once what each read needs."""
        samples, client, decoders = self._made_of
        each = samples.fields_of_each
        begins, text = samples.key_views
        fields = tuple(zip(samples.fields, decoders, strict=True)) if each else ()
        self._bound = (each, fields, *samples.columns, begins, key_text(text), client.stats)
        return self._bound


def _rows(keys: list[str], names: list[str], columns: Sequence[Any]) -> list[dict[str, Any]]:
    """Make a dict of each row; one or two fields, the usual ones, in a display, which is three times as fast."""
    if len(names) == 1:
        (name,), (column,) = names, columns
        return [{"__key__": key, name: value} for key, value in zip(keys, column, strict=True)]
    if len(names) == 2:
        (name, other), (column, second) = names, columns
        return [{"__key__": key, name: a, other: b} for key, a, b in zip(keys, column, second, strict=True)]
    every = ["__key__", *names]
    return [dict(zip(every, row, strict=True)) for row in zip(keys, *columns, strict=True)]
