"""IDC's ``data.pt``: pixels in [0, 1] with class indices, several images packed into one."""

from pathlib import Path

from harness.errors import DataError
from harness.types.formats.content import Content
from harness.types.formats.format import Format
from harness.types.formats.limits import within
from harness.types.formats.pickled import pair_of, read_pickled
from harness.types.options import Options, option
from harness.types.parametrisation import StoredEncoding

FILE = "data.pt"
MULTI_FORMATION = ("multi-formation", "ddbench")
"""Name and provider of the parametrisation by which IDC stores its sets."""


class PackedOptions(Options):
    """Options of the format: how images are packed, which the file does not say."""

    factor: int | None = option(None, "factor x factor images are packed into one; 1: none are (IDC-I)", ge=1, le=16)


def read(path: Path, options: PackedOptions, _entry: int) -> Content:
    """Read a list of images and labels; the images stay packed, and are decoded when they are used."""
    path = within(path, FILE)
    images, labels = pair_of(read_pickled(path), path.name)
    if options.factor is None:
        raise DataError(
            f"{path.name} does not say how many images are packed into one: say --from 'idc[factor=2]' (IDC-I: 1)"
        )
    return Content(
        where=path.name,
        images=images,
        labels=labels,
        pixels=True,
        provenance={"file": path.name, "format": "idc"},
        encoding=StoredEncoding(*MULTI_FORMATION, {"factor": options.factor}) if options.factor > 1 else None,
    )


FORMAT = Format("idc", (), "IDC's data.pt: packed pixels, [images, labels]", read, options=PackedOptions)
