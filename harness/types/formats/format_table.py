"""The table of all formats, and how the format of a file is recognised."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from harness.errors import DataError, UsageError, did_you_mean
from harness.system.home import expand_home
from harness.types.distilled import DistilledSet
from harness.types.formats import folder, idc, npz, own, tensors, vico
from harness.types.formats.content import Content, Reading, display_name, in_one_line
from harness.types.formats.format import LAST, Format
from harness.types.formats.limits import plain_file
from harness.types.formats.pickled import read_pickled
from harness.types.names import Name, parse_name
from harness.types.problem import Shape

Writer = Callable[[DistilledSet, Path], tuple[str, ...]]

FORMATS = {
    # The formats that can be written come first: messages list them in this order.
    format.name: format
    for format in (own.FORMAT, vico.FORMAT, npz.FORMAT, folder.FORMAT, tensors.MTT, tensors.DDRANKING, idc.FORMAT)
}
_OF_FOLDER = {tensors.MTT_FILE: tensors.MTT, tensors.RANKED_FILE: tensors.DDRANKING, idc.FILE: idc.FORMAT}
PICKLED = (".pt", ".pth")
_FRAGMENT = re.compile(
    r"(?i)(?<![a-z])(part|shard|split|chunk|phase)[-_. ]?\d+(?!\w)|(?<!\w)\d+[-_ ]?of[-_ ]?\d+(?!\w)"
    r"|(?<=[-_])\d+[-_ ]?of[-_ ]?\d+(?!\w)"
)
"""Parts of names which say that a set lies in several files: ``part2``, ``phase_0``, ``00001-of-00004``."""


def read_content(path: Path, reading: Reading, shape: Callable[[], Shape] | None = None) -> Content:
    """Read the content of a file or folder in the format that is named or recognised.

    Args:
        path: the file or folder.
        reading: instructions for reading it.
        shape: returns the image shape of the data set, with which a folder's images are compared before any is decoded.

    Raises:
        UsageError: there is no such format, or it has no such option.
        DataError: the file cannot be read, is not of the format, or cannot be what it says.
    """
    path = expand_home(path)
    name = parse_name(reading.format) if reading.format else Name(format_of(path).name)
    format = _known(name.name)
    if not format.several and reading.entry not in (LAST, 0):
        raise DataError(f"{display_name(path)} holds one set: leave out --entry")
    if shape is not None and format is folder.FORMAT:
        folder.check_size(path, shape())
    content = format.read(path, format.options.from_name(name), reading.entry)
    fragment = _FRAGMENT.search(display_name(path))
    return replace(
        content,
        where=in_one_line(content.where),
        notes=tuple(map(in_one_line, content.notes)),
        fragment=fragment.group().strip("-_. ") if fragment else None,
    )


def format_of(path: Path) -> Format:
    """Return the format of the file or folder at a path, recognised by its content and then by its suffix.

    Raises:
        DataError: nothing lies there, or nothing that a format describes.
    """
    if path.is_dir():
        return next((format for file, format in _OF_FOLDER.items() if os.path.lexists(path / file)), folder.FORMAT)
    plain_file(path)
    if path.suffix.lower() in PICKLED:
        return _of_pickled(path)
    # Every other suffix is tried as our own format, whose reader says what is missing.
    return npz.FORMAT if path.suffix.lower() == ".npz" else own.FORMAT


def writer_for(path: Path, name: str | None) -> Writer:
    """Return the function that writes a format, chosen by its name or by the suffix of the target.

    Raises:
        UsageError: there is no such format, or it can only be read.
    """
    by_suffix = [format for format in FORMATS.values() if path.suffix.lower() in format.suffixes]
    format = _known(name) if name else next(iter(by_suffix), folder.FORMAT if not path.suffix else None)
    written = ", ".join(format.name for format in FORMATS.values() if format.write)
    if format is None:
        raise UsageError(f"{path.name}: no format has the suffix {path.suffix!r}: say --to ({written})")
    if format.write is None:
        raise UsageError(f"the format {format.name!r} is only read: write one of {written}")
    return format.write


def save_distilled(distilled: DistilledSet, path: Path, format: str | None = None) -> tuple[str, ...]:
    """Write a set in a format, by default the one of the suffix; ``.safetensors`` stores everything.

    Args:
        distilled: the set.
        path: a file or, without a suffix, a folder that does not exist.
        format: ``safetensors``, ``vico``, ``npz`` or ``images``.

    Returns:
        What the format cannot hold, in words.

    Raises:
        UsageError: there is no such format, or it is only read.
        DataError: the format cannot hold such a set.
    """
    return writer_for(path, format)(distilled, path)


def _known(name: str) -> Format:
    if name not in FORMATS:
        raise UsageError(f"there is no format {name!r}: {did_you_mean(name, FORMATS)}")
    return FORMATS[name]


def _of_pickled(path: Path) -> Format:
    content = read_pickled(path)
    # Suffixes do not distinguish the formats that torch.save writes, so the content has to.
    if isinstance(content, Tensor):
        return tensors.DDRANKING if path.name == tensors.RANKED_FILE else tensors.MTT
    if isinstance(content, list | tuple) and len(content) == 2 and all(isinstance(part, Tensor) for part in content):
        return idc.FORMAT
    return vico.FORMAT
