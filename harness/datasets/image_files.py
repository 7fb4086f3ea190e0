"""Image files of both splits with their labels, decoded once."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from harness.datasets.mapped import Pixels, filled, is_large, require_room
from harness.errors import DataError
from harness.types.data.images import Fitting, decode_into, file_digests, read_headers
from harness.types.dataset import RawData
from harness.types.problem import Shape

SPLITS = ("train", "test")


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """The image files of both splits with their labels.

    Attributes:
        base: the folder that holds them all.
        classes: class names; label i is ``classes[i]``.
        paths: by split (`SPLITS`), the files, at least one.
        labels: by split, the label of each file, int64 (n,).
    """

    base: Path
    classes: tuple[str, ...]
    paths: Mapping[str, Sequence[str]]
    labels: Mapping[str, Tensor]

    @property
    def all_paths(self) -> list[str]:
        """The files of both splits."""
        return [path for split in SPLITS for path in self.paths[split]]

    def by_content(self, root: Path, kind: str, options: Mapping[str, Any], fitting: Fitting) -> RawData:
        """Decode the files, or take them from the cache; the key is their content, all of which is read each time.

        Images are grey if all of both splits are, and colour otherwise.

        Args:
            root: the folder that holds data sets.
            kind: the first word of the cached file's name.
            options: what else decides the pixels.
            fitting: how images come to one size.
        """
        digests = file_digests(self.all_paths)

        def shape() -> Shape:
            headers = read_headers(self.all_paths, fitting)
            # What is mapped from a file takes no memory but that of the files being decoded.
            headers.check_memory(0 if is_large(headers.values) else 1, "give a smaller size=N, or fewer images")
            return headers.channels, headers.height, headers.width

        return self._decoded(root, kind, self._key(options, b"".join(digests)), shape, fitting, digests)

    def by_stamp(self, root: Path, kind: str, options: Mapping[str, Any], fitting: Fitting, side: int) -> RawData:
        """Decode the files as colour images of ``side`` x ``side``, or take them from the cache.

        The key is their names, sizes and times of change: 150 GB cannot be read for every run. The other arguments are
        those of `by_content`.
        """
        stamps = "\n".join(map(_stamp, self.all_paths)).encode()

        def shape() -> Shape:
            require_room(len(self.all_paths) * 3 * side**2, f"decoding {len(self.all_paths):,} images")
            return 3, side, side

        return self._decoded(root, kind, self._key(options, stamps), shape, fitting, None)

    def _key(self, options: Mapping[str, Any], marks: bytes) -> str:
        """Return the digest of all that decides the pixels: options, relative names, and marks of the contents."""
        prefix = len(os.path.join(self.base, ""))
        names = [os.fsencode(path[prefix:].replace(os.sep, "/")) for path in self.all_paths]
        digest = hashlib.sha256(json.dumps(dict(options)).encode())
        digest.update(hashlib.sha256(b"\0".join(names)).digest())
        digest.update(hashlib.sha256(marks).digest())
        return digest.hexdigest()

    def _decoded(
        self,
        root: Path,
        kind: str,
        key: str,
        shape: Callable[[], Shape],
        fitting: Fitting,
        digests: Sequence[bytes] | None,
    ) -> RawData:
        boundary = len(self.paths["train"])
        digests_of = {"train": digests and digests[:boundary], "test": digests and digests[boundary:]}

        def fill(arrays: Mapping[str, Pixels]) -> None:
            for split in SPLITS:
                decode_into(arrays[split], self.paths[split], fitting, digests_of[split])

        splits = filled(root, kind, key, self.labels, shape, fill)
        return RawData(splits["train"], splits["test"], self.classes)


def _stamp(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    return f"{status.st_size} {status.st_mtime_ns}"
