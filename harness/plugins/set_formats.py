"""Reading and writing of distilled sets in the formats that plugins register, ours among them."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.errors import DataError, DDBenchError, PluginError, UsageError
from harness.plugins.discovery import plugins
from harness.plugins.registry import OWN, Registry, Resolved
from harness.plugins.returns import call_of, lines, returned
from harness.system.home import expand_home
from harness.types.data.preprocessing import Preprocessing
from harness.types.distilled import DistilledSet
from harness.types.formats import LAST, Content, Reading, SetFormat, display_name
from harness.types.formats.content import in_one_line
from harness.types.formats.limits import plain_file
from harness.types.parametrisation import StoredEncoding
from harness.types.problem import Shape

KIND = "format"
Format = SetFormat[Any]
_FOR_FOLDERS, _FOR_FILES = f"{OWN}:images", f"{OWN}:safetensors"
"""The formats of folders, and of files of no known suffix, that nothing recognises: their readers say what is wrong."""
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
        UsageError: there is no such format, or it has no such option, or several formats recognise the file.
        DataError: the file cannot be read, is not of the format, or cannot be what it says.
        PluginError: the format's code failed.
    """
    path = expand_home(path)
    doubts: list[str] = []
    if reading.format:
        resolved: Resolved[Format] = plugins().registry.resolve(KIND, reading.format)
        format = resolved.make()
    else:
        format = _format_of(path, doubts)
    if not format.several and reading.entry not in (LAST, 0):
        raise DataError(f"{display_name(path)} holds one set: leave out --entry")
    if shape is not None:
        format.check_shape(path, shape)
    content = _checked(format.read(path, reading.entry), call_of(format, "read"))
    fragment = _FRAGMENT.search(display_name(path))
    return replace(
        content,
        where=in_one_line(content.where),
        notes=tuple(map(in_one_line, (*content.notes, *doubts))),
        fragment=fragment.group().strip("-_. ") if fragment else None,
    )


@dataclass(frozen=True)
class Writer:
    """Writes sets in a format, once it has said that it can hold them."""

    format: Format

    def __call__(self, distilled: DistilledSet, path: Path) -> tuple[str, ...]:
        """Write a set to a path at which nothing lies, and return what is lost, in words.

        Raises:
            DataError: the format cannot hold such a set; nothing was written.
            PluginError: the format's code failed, or wrote nothing.
        """
        if refusal := self.format.refusal(distilled):
            raise DataError(in_one_line(returned(refusal, str, call_of(self.format, "refusal"))))
        what = call_of(self.format, "write")
        lost = lines(self.format.write(distilled, path), what)
        # NumPy, for instance, appends a suffix to a path that has none.
        if not os.path.lexists(path):
            raise PluginError(f"{what} wrote nothing at the path that it was asked to write")
        return tuple(lost)


def writer_for(path: Path, name: str | None) -> Writer:
    """Return the writer of a format, chosen by its name or by the suffix of the target.

    Raises:
        UsageError: there is no such format, it can only be read, or several formats have the suffix.
    """
    registry, doubts = plugins().registry, list[str]()
    written = [resolved for resolved in _usable(registry, doubts) if resolved.cls.is_written()]
    names = ", ".join(map(str, written))
    if name is None and not path.suffix:
        name = _FOR_FOLDERS
    if name is not None:
        chosen: Resolved[Format] = registry.resolve(KIND, name)
        if not chosen.cls.is_written():
            raise UsageError(f"the format {str(chosen)!r} is only read: write one of {names}")
        return Writer(chosen.make())
    by_suffix = [resolved for resolved in written if path.suffix.lower() in resolved.cls.suffixes]
    if len(by_suffix) > 1:
        raise UsageError(f"{path.name}: several formats have the suffix {path.suffix!r}: say --to {_either(by_suffix)}")
    if not by_suffix:
        why = "".join(f"; {doubt}" for doubt in doubts)
        raise UsageError(f"{path.name}: no format has the suffix {path.suffix!r}: say --to ({names}){why}")
    return Writer(by_suffix[0].make())


def save_distilled(distilled: DistilledSet, path: Path, format: str | None = None) -> tuple[str, ...]:
    """Write a set in a format, by default the one of the suffix; ``.safetensors`` stores everything.

    Args:
        distilled: the set.
        path: a file or, without a suffix, a folder that does not exist.
        format: ``safetensors``, ``vico``, ``npz`` or ``images``, or a format of a plugin.

    Returns:
        What the format cannot hold, in words.

    Raises:
        UsageError: there is no such format, or it is only read.
        DataError: the format cannot hold such a set.
    """
    return writer_for(path, format)(distilled, path)


def _format_of(path: Path, doubts: list[str]) -> Format:
    """Return the format that recognises the file or folder at a path, or else the one of its suffix.

    Raises:
        DataError: nothing lies there, or something that is neither file nor folder.
        UsageError: several formats recognise it.
    """
    if not path.is_dir():
        plain_file(path)
    usable = list(_usable(plugins().registry, doubts))
    recognising = [resolved for resolved in usable if _recognises(resolved, path, doubts)]
    if not recognising and not path.is_dir():
        recognising = [resolved for resolved in usable if path.suffix.lower() in resolved.cls.suffixes]
    if len(recognising) > 1:
        raise UsageError(f"{display_name(path)} may be of several formats: say --from {_either(recognising)}")
    if recognising:
        return recognising[0].make()
    resolved = plugins().registry.resolve(KIND, _FOR_FOLDERS if path.is_dir() else _FOR_FILES)
    format: Format = resolved.make()
    return format


def _usable(registry: Registry, doubts: list[str]) -> Iterator[Resolved[Format]]:
    """Yield the formats with their default options, ours first; add a line to ``doubts`` for each that is broken."""
    # In the order of registration: messages list ours by how much they hold.
    for entry in registry.entries:
        if entry.kind == KIND:
            try:
                yield registry.resolve(KIND, f"{entry.provider}:{entry.name}")
            except PluginError as error:  # a format that is broken must not stop the reading of others
                doubts.append(f"left out: {error}")
            except UsageError:  # it has options without defaults, so that it has to be named
                continue


def _recognises(resolved: Resolved[Format], path: Path, doubts: list[str]) -> bool:
    try:
        format = resolved.make()
        return returned(format.recognises(path), bool, call_of(format, "recognises"))
    except DDBenchError as error:
        doubts.append(f"left out: {error}")
        return False


def _either(formats: Iterable[Resolved[Format]]) -> str:
    return " or ".join(map(str, formats))


def _checked(value: Any, what: str) -> Content:  # noqa: ANN401
    """Return what a format read, if every part of it is of the type that the rest of the harness relies on.

    Raises:
        PluginError: it is something else.
    """
    content = returned(value, Content, what)
    returned(content.where, str, f"{what}: where")
    optional = {"labels": Tensor, "classes": tuple, "preprocessing": Preprocessing, "encoding": StoredEncoding}
    for name, kind in optional.items():
        if (part := getattr(content, name)) is not None:
            returned(part, kind, f"{what}: {name}")
    for text in (*(content.classes or ()), *returned(content.notes, Sequence, f"{what}: notes")):  # type: ignore[type-abstract]
        returned(text, str, f"{what}: a class or note")
    returned(content.provenance, Mapping, f"{what}: provenance")  # type: ignore[type-abstract]
    # Types and values of the tensors are checked when the content is completed to a set: they may be the file's fault.
    for tensor in (returned(content.images, Tensor, f"{what}: images"), content.labels):
        if tensor is not None and (tensor.device.type != "cpu" or tensor.layout != torch.strided):
            raise PluginError(f"{what} returned a tensor on {tensor.device}, {tensor.layout}: read it on the CPU")
    return content
