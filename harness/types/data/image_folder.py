"""Image folders with a folder for each class, listed without reading a file twice or following a loop of links."""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import DataError
from harness.types.data.class_names import canonical_name
from harness.types.data.images import is_image

MOST_IMAGES = 2**25
"""Upper limit for the images of a class: a longer listing means that the wrong folder was named."""
Entry = os.DirEntry[str]


@dataclass(frozen=True)
class ImageFolder:
    """A folder that holds class folders, perhaps below other folders (``train``).

    Each real folder may be reached only once, through whatever links: a second way to it would count images twice, put
        them into two classes or into training and test set, or never end. Hidden files and folders are ignored.

    Attributes:
        base: the folder, which exists.
        shown: its name in messages.
        foreign: whether it came from elsewhere, as a distilled set does: no link may lead out of it, and a class folder
            holds no other.
    """

    base: Path
    shown: str
    foreign: bool = False
    _met: dict[tuple[int, int], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._meet(os.fspath(self.base))
        for parent in self.base.resolve().parents:  # a link to one of these leads back here
            self._meet(os.fspath(parent))

    def class_folders(self, *parts: str) -> dict[str, str]:
        """Return the class folders in the folder ``parts`` as a dictionary from class name to folder name.

        Raises:
            DataError: there are no class folders, an image lies beside them, a link leads nowhere or back, something
                cannot be read, or two names differ in their Unicode form alone.
        """
        where = os.path.join(self.base, *parts)
        shown = os.path.join(self.shown, *parts)
        self._meet(where)
        folders: dict[str, str] = {}
        for entry in self._entries(where):
            if self._is_folder(entry):
                self._meet(entry.path)
                name = canonical_name(entry.name)
                if name in folders:
                    fault = f"two folders {name!r}, one in composed and one in decomposed Unicode"
                    raise DataError(f"{shown} has {fault}: put their images together")
                folders[name] = entry.name
            elif is_image(entry.name):
                raise DataError(f"{self._called(entry)} is in no class: images belong in {self._class(*parts)}")
        if not folders:
            raise DataError(f"{shown} has no class folders: images belong in {self._class(*parts)}")
        return folders

    def images(self, *parts: str) -> list[str]:
        """Return the sorted paths of all images in a class folder and below it; a file is an image by its suffix.

        Raises:
            DataError: an image is not a plain file, a link leads nowhere or back, there are too many, or
                something cannot be read.
        """
        files: list[str] = []
        waiting = [os.path.join(self.base, *parts)]
        while waiting:
            folder = waiting.pop()
            for entry in self._entries(folder):
                if self._is_folder(entry):
                    self._check_nesting(entry)
                    self._meet(entry.path)
                    waiting.append(entry.path)
                elif is_image(entry.name):
                    self._check_plain(entry)
                    files.append(entry.path)
            if len(files) > MOST_IMAGES:
                raise DataError(f"a class has more than {MOST_IMAGES:,} images, up to {folder}: give another folder")
        return sorted(files)

    def _meet(self, path: str) -> None:
        """Record a folder by its device and inode; refuse it if it was already reached by another path."""
        try:
            status = os.stat(path)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from None
        # Some network file systems report no inode numbers, and then two folders cannot be distinguished.
        if not status.st_ino:
            return
        first = self._met.setdefault((status.st_dev, status.st_ino), path)
        if first != path:
            fault = f"leads to the folder {first}, which is read already: its images would count twice"
            raise DataError(f"{path} {fault}; delete the link")

    def _entries(self, folder: str) -> list[Entry]:
        """Return the sorted entries of a folder without the hidden ones."""
        try:
            with os.scandir(folder) as entries:
                return sorted(
                    (entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name
                )
        except OSError as error:
            shown = self.shown if self.foreign else folder
            raise DataError(f"{shown} cannot be read: {error.strerror}") from None

    def _is_folder(self, entry: Entry) -> bool:
        """Return whether an entry is a folder or a link to one; a link must lead somewhere, and inside if required."""
        try:
            if entry.is_symlink():
                entry.stat()
                # A set from elsewhere could link to the user's own files, which would then be copied into results.
                if self.foreign and not Path(entry.path).resolve().is_relative_to(self.base.resolve()):
                    raise DataError(
                        f"{self._called(entry)} is a link out of the folder: put the images themselves there"
                    )
            return entry.is_dir()
        except OSError as error:
            link = f" ({entry.name!r} leads nowhere: delete it)" if entry.is_symlink() else ""
            raise DataError(f"{self._called(entry)} cannot be read: {error.strerror}{link}") from None

    def _check_nesting(self, entry: Entry) -> None:
        if self.foreign:
            holder = os.path.basename(os.path.dirname(entry.path))
            fault = f"{holder!r} holds the folder {entry.name!r}"
            raise DataError(f"{self.shown}: {fault}: images belong in CLASS/ itself")

    def _check_plain(self, entry: Entry) -> None:
        """Refuse an image that is not a plain file: reading a pipe or a device may never end."""
        if not entry.is_file():
            holder = f" in {os.path.basename(os.path.dirname(entry.path))!r}" if self.foreign else ""
            kind = _kind(entry)
            raise DataError(f"{self._called(entry)}{holder} is not a plain file, but {kind}: delete it or rename it")

    def _called(self, entry: Entry) -> str:
        return f"{self.shown}: {entry.name!r}" if self.foreign else entry.path

    def _class(self, *parts: str) -> str:
        return os.path.join(self.shown, *parts, "CLASS", "")


def _kind(entry: Entry) -> str:
    try:
        mode = entry.stat().st_mode
    except OSError:
        return "gone meanwhile"
    kinds = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((name for is_kind, name in kinds if is_kind(mode)), "a device")
