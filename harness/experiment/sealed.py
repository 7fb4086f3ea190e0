"""Files that verify themselves: the name of each ends in the SHA-256 of its content. Needs no torch."""

import errno
import hashlib
import re
from pathlib import Path

from harness.types.files import write_whole

_NAME = re.compile(r"(.+)-([0-9a-f]{64})\.safetensors")


def write_sealed(folder: Path, stem: str, content: bytes) -> Path:
    """Write a file, and read it back.

    Raises:
        OSError: it cannot be written, or what is read is something else.
    """
    path = folder / f"{stem}-{hashlib.sha256(content).hexdigest()}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)
    if read_sealed(path) is None:
        raise OSError(errno.EIO, "what was written is read back as something else", str(path))
    return path


def read_sealed(path: Path) -> bytes | None:
    """The content of such a file; None where it was damaged, or cannot be read."""
    named = _NAME.fullmatch(path.name)
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return content if named and hashlib.sha256(content).hexdigest() == named[2] else None


def sealed_in(folder: Path) -> list[tuple[str, Path]]:
    """Such files in a folder, each with its name's own part, in the order of names; damaged ones too."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [(named[1], path) for path in found if (named := _NAME.fullmatch(path.name))]
