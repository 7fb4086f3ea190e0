"""Files of unfinished cells: the name of each ends in the SHA-256 of its content, so that it verifies itself."""

import errno
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from harness.store.cells import SHORT
from harness.store.files.reading import DamagedFile, digest_of, read_bytes
from harness.system.whole_files import write_whole

_NAME = re.compile(r"(.+)-([0-9a-f]{64})\.safetensors", re.DOTALL)


def write_sealed(folder: Path, stem: str, content: bytes) -> Path:
    """Write a file into a folder, and read it back.

    Raises:
        OSError: it cannot be written, or different content is read back.
    """
    # The digest is part of the name, because one rename then replaces both: a digest in a second file could be of an
    # older checkpoint after a crash between the two writes.
    path = folder / f"{stem}-{hashlib.sha256(content).hexdigest()}.safetensors"
    write_whole(path, content)
    # Older checkpoints are removed after this one: full quotas and failing disks must show up before.
    if read_sealed(path) is None:
        raise OSError(errno.EIO, "what was written is read back as something else", str(path))
    return path


def read_sealed(path: Path) -> bytes | None:
    """Return the content of a sealed file; None if it is damaged or cannot be read."""
    named = _NAME.fullmatch(path.name)
    try:
        content = read_bytes(path, most=None)
    except (FileNotFoundError, DamagedFile):
        return None
    return content if named and hashlib.sha256(content).hexdigest() == named[2] else None


def sealed_in(folder: Path) -> list[tuple[str, Path]]:
    """Return the sealed files in a folder by name, each with the stem of its name; damaged ones too."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return [(named[1], path) for path in paths if (named := _NAME.fullmatch(path.name))]


def damages(path: Path) -> Iterator[str]:
    """Yield what is wrong with an entry of a folder of sealed files, with the remedy."""
    named, remedy = _NAME.fullmatch(path.name), "delete it: a run passes over it, and makes again what it held"
    try:
        if named is None:
            yield f"{path} does not belong in a store: move it away"
        elif digest_of(path) != named[2]:
            yield f"{path} was altered: {remedy}"
    except FileNotFoundError:
        return  # it was removed meanwhile
    except DamagedFile as damage:
        yield f"{damage}: {remedy}"


_CHECKPOINT = re.compile(rf"(\d+)-([0-9a-f]{{{SHORT}}})", re.ASCII)


class CheckpointFile(NamedTuple):
    """A checkpoint, by its name: the iteration, the beginning of the set's key, and the file."""

    iteration: int
    cell: str
    path: Path


def checkpoint_files_in(folder: Path) -> list[CheckpointFile]:
    """Return the checkpoints in a folder, sorted by iteration; damaged ones too."""
    # Of a damaged one only the name is known, which is enough: a run reads the newest sound one and passes over others.
    named = [(_CHECKPOINT.fullmatch(name), path) for name, path in sealed_in(folder)]
    return sorted(CheckpointFile(int(name[1]), name[2], path) for name, path in named if name)
