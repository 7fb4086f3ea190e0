"""IDC's ``data.pt``: pixels in [0, 1] with class indices, several images packed into one."""

from pathlib import Path

from harness.errors import DataError
from harness.types.formats.content import Content
from harness.types.formats.format import SetFormat
from harness.types.formats.limits import within
from harness.types.formats.pickled import IDC_FILE, PICKLED, file_of_folder, pair_of, pickled_form, read_pickled
from harness.types.options import Options, option
from harness.types.parametrisation import StoredEncoding

MULTI_FORMATION = ("multi-formation", "ddbench")
"""Name and provider of the parametrisation by which IDC stores its sets."""


class PackedOptions(Options):
    """Options of the format: how images are packed, which the file does not say."""

    factor: int | None = option(None, "factor x factor images are packed into one; 1: none are (IDC-I)", ge=1, le=16)


class IDC(SetFormat[PackedOptions]):
    """IDC's data.pt: a list of images and labels; the images stay packed, and are decoded when they are used."""

    Options = PackedOptions

    def recognises(self, path: Path) -> bool:
        """Return whether it is a folder of IDC's, or a pair of tensors was pickled."""
        if path.is_dir():
            return file_of_folder(path) == IDC_FILE
        return path.suffix.lower() in PICKLED and pickled_form(path) == "pair"

    def read(self, path: Path, entry: int) -> Content:
        """Read the images and labels."""
        path = within(path, IDC_FILE)
        images, labels = pair_of(read_pickled(path), path.name)
        factor = self.options.factor
        if factor is None:
            raise DataError(
                f"{path.name} does not say how many images are packed into one: say --from 'idc[factor=2]' (IDC-I: 1)"
            )
        return Content(
            where=path.name,
            images=images,
            labels=labels,
            pixels=True,
            provenance={"file": path.name, "format": "idc"},
            encoding=StoredEncoding(*MULTI_FORMATION, {"factor": factor}) if factor > 1 else None,
        )
