"""From the bytes of a field to a value."""

from loaders.decoding.arrays import decode_npy
from loaders.decoding.choosing import AUTO, DecodeOption, Decoder, choose_decoders
from loaders.decoding.crops import Box, center_box, random_box
from loaders.decoding.images import decode_image
from loaders.decoding.resizing import ImageCrop

__all__ = [
    "AUTO",
    "Box",
    "DecodeOption",
    "Decoder",
    "ImageCrop",
    "center_box",
    "choose_decoders",
    "decode_image",
    "decode_npy",
    "random_box",
]
