"""One sample by its number, in as few steps as Python can take: each costs as much as copying a kilobyte."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache_runtime import Client
    from loaders.decoding import Decoder
    from loaders.samples import SampleIndex


class SingleReader:
    """Reads samples one at a time, where all of them have all fields and their bytes are at hand.

    Without arrays and ranges, which cost more than the bytes.

    Args:
        samples: Which, and where they lie.
        client: Reads through its store.
        decoders: Of each field of the samples.
    """

    __slots__ = ("_bound", "_made_of")

    def __init__(self, samples: SampleIndex, client: Client, decoders: Sequence[Decoder]) -> None:
        self._made_of = (samples, client, decoders)
        self._bound: tuple[Any, ...] | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return SingleReader, self._made_of

    def read(self, number: int) -> dict[str, Any] | None:
        """Return one decoded sample; None if it is not to be had this way.

        Args:
            number: In [0, n).

        Raises:
            Exception: Of a decoder.
        """
        bound = self._bound or self._bind()
        each, fields, objects, offsets, lengths, begins, text, table, whole_of, stats = bound
        if not each:
            return None
        sample: dict[str, Any] = {"__key__": str(text[begins[number] : begins[number + 1]], "utf-8")}
        member = number * each
        at, size = -1, 0
        for name, decoder in fields:
            if (where := objects[member]) != at:
                whole, at = whole_of(table.known.get(where) or table.ref(where), for_one=True), where
                if whole is None:
                    return None
            start = offsets[member]
            end = start + lengths[member]
            if end > len(whole):
                return None
            sample[name] = decoder(whole[start:end])
            size += end - start
            member += 1
        stats.reads_local += each
        stats.bytes_local += size
        return sample

    def _bind(self) -> tuple[Any, ...]:
        """Look up once what each read needs."""
        samples, client, decoders = self._made_of
        fields = tuple(zip(samples.fields, decoders, strict=True))
        assert client.store is not None
        self._bound = (
            samples.fields_of_each,
            fields,
            *samples.columns,
            *samples.key_views,
            samples.objects,
            client.store.whole,
            client.stats,
        )
        return self._bound
