"""A file of bytes: five numbers, then the pixels and the labels."""

import struct
from math import prod
from pathlib import Path

import torch

from harness import Content, DataError, DistilledSet, Options, SetFormat, check_promise, lost_metadata, plain_file

MAGIC = b"ACME"
HEAD = struct.Struct("<4s4I")
"""The magic word, and (n, channels, height, width)."""


class Raw(SetFormat[Options]):
    """Pixels (n, channels, height, width) from 0 to 255, and a class index for each image, all of them bytes."""

    suffixes = (".acme",)

    def recognises(self, path: Path) -> bool:
        """Files begin with the magic word, whatever they are called."""
        try:
            with path.open("rb") as file:
                return file.read(len(MAGIC)) == MAGIC
        except OSError:
            return False

    def read(self, path: Path, entry: int) -> Content:
        """The head says how long the file has to be, before anything else is read."""
        size = plain_file(path)
        with path.open("rb") as file:
            head = file.read(HEAD.size)
            if len(head) < HEAD.size or head[: len(MAGIC)] != MAGIC:
                raise DataError(f"{path.name} does not begin as a file of acme-raw does")
            _, *shape = HEAD.unpack(head)
            check_promise([shape], size, path.name)
            count, pixels = shape[0], prod(shape)
            if not pixels or size != HEAD.size + pixels + count:
                raise DataError(f"{path.name} promises {pixels} pixels and {count} labels in {size} bytes")
            images = torch.frombuffer(bytearray(file.read(pixels)), dtype=torch.uint8).reshape(*shape)
            labels = torch.frombuffer(bytearray(file.read(count)), dtype=torch.uint8)
        return Content(path.name, images.float() / 255, labels.long(), pixels=True, provenance={"format": "acme-raw"})

    def refusal(self, distilled: DistilledSet) -> str | None:
        """A label is a byte."""
        if distilled.label_kind != "hard":
            return (
                f"acme-raw holds class indices, and these labels are {distilled.label_kind}: write safetensors or npz"
            )
        if len(distilled.classes) > 256:
            return f"acme-raw holds 256 classes, and this set has {len(distilled.classes)}: write safetensors or npz"
        return None

    def write(self, distilled: DistilledSet, path: Path) -> tuple[str, ...]:
        """Round to bytes."""
        images, labels = distilled.training_data()
        pixels = (distilled.preprocessing.invert(images) * 255).round().clamp(0, 255).byte()
        head = HEAD.pack(MAGIC, *pixels.shape)
        path.write_bytes(head + pixels.contiguous().numpy().tobytes() + labels.byte().numpy().tobytes())
        return ("pixels are rounded to 8 bits, and clipped to them", *lost_metadata(distilled))
